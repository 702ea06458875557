#!/bin/bash -eu
# Builds one program for each target, its corpus and its dictionary, into $OUT.
pip3 install '.[test]'
export PYTHONPATH=$PWD
for target in $(python3 -m tests.fuzz --list); do
    name=fuzz_${target//-/_}
    # What PyInstaller follows: a program that knows its target. The parts that a target uses when it
    # runs are imported by name, so they are named here.
    cat >"$name.py" <<PROGRAM
import os
import sys

os.environ["CCID_FUZZ_TARGET"] = "$target"
import atheris

with atheris.instrument_imports(include=["ccid"]):
    import tests.fuzz.targets
from tests.fuzz.guided import main

if __name__ == "__main__":
    main()
PROGRAM
    compile_python_fuzzer "$name.py" --paths "$PWD" \
        --collect-submodules ccid --collect-data ccid --collect-submodules usb
    (cd "tests/fuzz/corpus/$target" && zip -q "$OUT/${name}_seed_corpus.zip" -- *)
    if [[ -f tests/fuzz/dictionaries/$target.dict ]]; then
        cp "tests/fuzz/dictionaries/$target.dict" "$OUT/$name.dict"
    fi
done
