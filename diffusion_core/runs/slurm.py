"""The job script for Slurm: continues a run, and again after a time limit or a preemption."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from diffusion_core.runs.config import RunConfig
from diffusion_core.runs.launch import (
    FIRST_MACHINE,
    PORT,
    check_machines,
    launcher_words,
    train_words,
)

# Before the end, to finish a step, write a checkpoint and end.
NOTICE_SECONDS = 120

SCRIPT = """\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --nodes={machines}
#SBATCH --ntasks-per-node=1
{gpus}#SBATCH --signal=B:TERM@{notice}
#SBATCH --requeue
#SBATCH --open-mode=append
# Add what your cluster asks for, here or as options of sbatch: --time, --partition, --account.
# Slurm signals this script {notice} seconds before the time limit. It stops the run, which writes a
# checkpoint, and puts the job in the queue again. A preempted job is put there by Slurm.

cd {folder} || exit 1
exec >>{log} 2>&1
{FIRST}=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export {FIRST}

signalled=
stop() {{
    signalled=yes woken=yes
    {stop} || kill -TERM "$training"
}}
trap stop TERM

srun --kill-on-bad-exit=1 bash -c {train} &
training=$!
woken=yes
while [ -n "$woken" ]; do # a signal ends the waiting, not the training
    woken=
    wait "$training"
    code=$?
done
if [ -n "$signalled" ] && [ "$code" -eq 0 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


def job_script(
    path: Path, config: RunConfig, machines: int, processes: int, device: str | None
) -> str:
    """The script for `sbatch`. `processes`: on each machine, one per GPU unless `device` is cpu.

    Raises ConfigError where the batch cannot be shared.
    """
    check_machines(config, machines, processes)
    words = [sys.executable, "-m", "torch.distributed.run", *launcher_words(processes)]
    if machines == 1:
        words.append("--standalone")
    # It does nothing for a run without a checkpoint but to begin.
    train = shlex.join([*words, *train_words(path, device, resume=True)])
    if machines > 1:
        meet = f'--master_addr "${FIRST_MACHINE}" --master_port {PORT}'
        several = f'--nnodes {machines} --node_rank "$SLURM_NODEID" {meet}'
        train = train.replace("--nproc_per_node", f"{several} --nproc_per_node", 1)
    gpus = "" if device == "cpu" else f"#SBATCH --gpus-per-node={processes}\n"
    return SCRIPT.format(
        name=path.name,
        machines=machines,
        gpus=gpus,
        notice=NOTICE_SECONDS,
        folder=shlex.quote(str(Path.cwd())),
        log=shlex.quote(str(path.resolve() / "train.log")),
        FIRST=FIRST_MACHINE,
        stop=shlex.join([sys.executable, "-m", "diffusion_core", "stop", str(path.resolve())]),
        train=shlex.quote(f"exec {train}"),
    )
