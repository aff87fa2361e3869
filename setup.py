"""The one part of fairlead that is not Python: the DNS's inner loop, built where there is a C compiler.

Everything else about the package is in pyproject.toml. Without a compiler the package is whole: the loop is there in
Python too.
"""

import sys

from setuptools import Extension, setup

EXTENSIONS = [
    Extension(
        "fairlead.dns._hot",
        ["src/fairlead/dns/_hot.c"],
        depends=["src/fairlead/dns/siphash.h"],
        extra_compile_args=["-O2", "-pthread"],
        extra_link_args=["-pthread"],
        py_limited_api=True,
        optional=True,
    )
]

setup(
    ext_modules=EXTENSIONS if sys.platform == "linux" else [],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if sys.platform == "linux" else {},
)
