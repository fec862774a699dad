# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The short header of our files, as ament_copyright knows licences: an entry point of setup.py.

It wants thirteen lines in every file otherwise.
"""

from collections import namedtuple

Licence = namedtuple('LicenseEntryPoint', [
    'name', 'spdx', 'file_headers', 'license_files', 'contributing_files'])
IDENTIFIER = 'SPDX-License-Identifier: Apache-2.0'
APACHE2 = Licence(
    'Apache License, Version 2.0, by its identifier', 'Apache-2.0',
    [f'{{copyright}}\n{IDENTIFIER}'], [], [])
