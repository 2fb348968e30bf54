#!/usr/bin/env bash
# Builds `reconstruct` here, or in the folder that is named, with the TensorFlow of this Python.
set -euo pipefail
to=${1:-.}
source=$(cd "$(dirname "$0")" && pwd)/reconstruct.cpp
wheel=$(python -c "import importlib.util as u; print(u.find_spec('tensorflow').submodule_search_locations[0])")
g++ -std=c++17 -O1 -w "$source" -o "$to/reconstruct" -I "$wheel/include" -L "$wheel" \
  -Wl,-rpath,"$wheel" -l:libtensorflow_cc.so.2 -l:libtensorflow_framework.so.2
