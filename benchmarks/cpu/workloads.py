"""All workloads by name, in the order of the tables."""

from __future__ import annotations

from benchmarks.cpu import nodes, reads, writes
from benchmarks.cpu.base import Workload

WORKLOADS: dict[str, type[Workload]] = {
    workload.name: workload
    for workload in (
        *(
            reads.ReadBlosc,
            reads.ReadZstd,
            reads.ReadRaw,
            reads.ReadSmall,
            reads.ReadTiny,
            reads.ReadGzip,
            reads.ReadZip,
        ),
        *(
            reads.Crops,
            reads.Planes,
            reads.ShardBlosc,
            reads.ShardZstd,
            reads.ShardCrops,
            reads.ShardCropsZstd,
            reads.Orthogonal,
            reads.Points,
        ),
        *(writes.Write, writes.WriteZstd, writes.Unaligned, writes.Append),
        *(
            nodes.OpenOne,
            nodes.Members,
            nodes.MembersConsolidated,
            nodes.OpenMembers,
            nodes.OpenMembersConsolidated,
        ),
    )
}
IMPORT = "import"
"""The one workload that is not in the table: it needs no data, but fresh interpreters."""
