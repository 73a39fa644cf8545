"""What every test may use: the shared data, Hypothesis profiles, and skips that may not hide.

Environment:

``HYPOTHESIS_PROFILE``  ``fast`` (default), ``ci`` or ``full`` (2,000 examples per property)
``FORBID_SKIPS=1``      a skip is a failure, save for tests marked ``gpu`` and for reasons that
                        start with ``platform:``
``SERVERS_OPTIONAL=1``  so are not, then, reasons that start with ``server:`` (nothing can be
                        installed on this machine)
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Suites tell what differed, as test files do.
pytest.register_assert_rewrite(
    "codec_suite",
    "device_suite",
    "kernel_suite",
    "step_suite",
    *(path.stem for path in Path(__file__).parent.glob("store_suite*.py")),
)

ROOT = Path(__file__).resolve().parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"

# Deterministic, and without deadlines: a busy machine must not decide what passes.
for profile, max_examples in {"fast": 40, "ci": 200, "full": 2000}.items():
    settings.register_profile(
        profile,
        max_examples=max_examples,
        derandomize=True,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
        print_blob=True,
    )
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


# What the process has read before must not decide how a test reads.
os.environ.setdefault("ZARR_GPU_CPU__COMPILED", "false")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--store-table", metavar="FILE", help="write the table of stores and checks to FILE"
    )

    parser.addoption(
        "--fake-cuda", action="store_true", help="run tests marked gpu on a CuPy that is pretended"
    )


@pytest.fixture(autouse=True)
def _pretended_gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.config.getoption("--fake-cuda") and request.node.get_closest_marker("gpu"):
        import fake_cupy

        fake_cupy.install(monkeypatch)


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--store-table")
    if path:
        from store_table import StoreTable

        config.pluginmanager.register(StoreTable(path))


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository's root folder."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of stores written by other implementations; never write into it."""
    if not SHARED_DATA.is_dir():
        pytest.skip("shared data: no folder ../shared/data beside the repository")
    return SHARED_DATA


def forbid_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure, unless its reason is one that is allowed."""
    reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
    allowed = ("platform:", "server:") if os.environ.get("SERVERS_OPTIONAL") == "1" else "platform:"
    if not reason.removeprefix("Skipped: ").startswith(allowed):
        report.outcome = "failed"
        report.longrepr = f"FORBID_SKIPS=1 forbids skipping: {reason}"


def strict() -> bool:
    return os.environ.get("FORBID_SKIPS") == "1"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    expected = hasattr(report, "wasxfail") or item.get_closest_marker("gpu") is not None
    if strict() and report.skipped and not expected:
        forbid_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if strict() and report.skipped:
        forbid_skip(report)
    return report
