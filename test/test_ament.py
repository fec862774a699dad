# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The linters that ``ros2 pkg create`` writes tests for, where they are installed."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = [str(ROOT / name) for name in ('pi0_ros', 'launch', 'test', 'benchmarks', 'setup.py')]
REASON = 'comes with a ROS installation'


@pytest.mark.linter
@pytest.mark.copyright
def test_copyright():
    main = pytest.importorskip('ament_copyright.main', reason=REASON).main
    assert main(argv=[str(ROOT), '--exclude', '.venv', 'out']) == 0


@pytest.mark.linter
@pytest.mark.flake8
def test_flake8():
    main = pytest.importorskip('ament_flake8.main', reason=REASON).main_with_errors
    code, errors = main(argv=FOLDERS)
    assert code == 0, '\n'.join(errors)


@pytest.mark.linter
@pytest.mark.pep257
def test_pep257():
    main = pytest.importorskip('ament_pep257.main', reason=REASON).main
    assert main(argv=FOLDERS) == 0


@pytest.mark.linter
@pytest.mark.xmllint
def test_xmllint():
    main = pytest.importorskip('ament_xmllint.main', reason=REASON).main
    assert main(argv=[str(ROOT / 'package.xml'), str(ROOT / 'pi0_interfaces')]) == 0
