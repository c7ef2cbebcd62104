# SPDX-License-Identifier: Apache-2.0
# lit's settings: -Dmdopt=PROGRAM -Dfilecheck=PROGRAM -Dwork=FOLDER.
import os

import lit.formats

config.name = "ir"
config.suffixes = [".mdg"]
config.test_format = lit.formats.ShTest()
config.test_source_root = os.path.dirname(__file__)
config.test_exec_root = lit_config.params["work"]
config.substitutions.append(("%mdopt", lit_config.params["mdopt"]))
config.substitutions.append(("FileCheck", lit_config.params["filecheck"] + " --dump-input-filter=all"))
config.environment["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "")
