#!/usr/bin/env bash
# Puts into target/cpu_day what run.py needs on a machine that builds nothing: the kernels' tests, the
# layers' bench and the engine's bench, and a network. That machine's C library must be as new as this
# one's. Python needs what
# benches/peers/requirements.txt names.
set -euo pipefail
cd "$(dirname "$0")/../.."
to=target/cpu_day
mkdir -p $to
cargo build --release --locked -p fastnnunet-kernels --example layers
cargo build --release --locked --no-default-features --example bench_engine
tests=$(cargo test --release --locked -p fastnnunet-kernels --lib --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*fastnnunet_kernels-[^"]*\)".*/\1/p')
cp "$tests" $to/kernel_tests
cp target/release/examples/{layers,bench_engine} $to
strip $to/kernel_tests $to/layers $to/bench_engine
test -f $to/student8.onnx || ${PYTHON:-python3} -c "
import sys; sys.path.insert(0, 'benches/peers')
import compare; compare.export('student8', '$to/student8.onnx')"
cp benches/cpu_day/run.py $to
ls -l $to
