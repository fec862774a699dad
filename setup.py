# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Package pi0_ros, an ament_python package."""

from glob import glob

from setuptools import find_packages, setup

PACKAGE = 'pi0_ros'
VERBS = ('node', 'sim', 'demo', 'operate', 'infer', 'inspect', 'evaluate', 'export', 'serve',
         'demonstrate', 'train')

setup(
    name=PACKAGE,
    version='0.1.0',
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    package_data={f'{PACKAGE}.sim': ['checkpoint/*', 'checkpoint/tokenizer/*'],
                  f'{PACKAGE}.evaluation': ['*.j2']},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{PACKAGE}']),
        (f'share/{PACKAGE}', ['package.xml']),
        (f'share/{PACKAGE}/launch', glob('launch/*.launch.py')),
        (f'share/{PACKAGE}/config', glob('config/*.*')),
        (f'share/{PACKAGE}/config/robots', glob('config/robots/*')),
    ],
    install_requires=['setuptools'],
    extras_require={'test': ['pytest', 'hypothesis', 'pyyaml']},
    zip_safe=False,
    python_requires='>=3.10',
    maintainer='pi0_ros maintainers',
    maintainer_email='maintainers@pi0-ros.invalid',
    description='Runs PI0, the vision-language-action policy, on a robot with ROS 2.',
    license='Apache-2.0',
    entry_points={'console_scripts': [f'{verb} = {PACKAGE}.cli:{verb}' for verb in VERBS],
                  'ament_copyright.license': [f'apache2_short = {PACKAGE}.licence:APACHE2']},
)
