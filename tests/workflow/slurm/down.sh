#!/usr/bin/env bash
# End exactly the daemons that up.sh started in FOLDER, and take its configuration away.
set -uo pipefail
folder=$(realpath -m "${1:?usage: down.sh FOLDER}")
scancel --user root 2>/dev/null
for file in "$folder"/run/slurmd.*.pid "$folder"/run/slurmctld.pid /run/munge/munged.pid; do
    [[ -s $file ]] && kill "$(cat "$file")" 2>/dev/null
done
for file in slurm gres cgroup; do
    [[ /etc/slurm/$file.conf -ef $folder/$file.conf ]] && rm "/etc/slurm/$file.conf"
done
exit 0
