#!/usr/bin/env bash
# A throw-away Slurm of two nodes on this machine: real slurmctld, slurmd and munge, pretended cores, memory and GPUs; without
# systemd, cgroups or an accounting database. Debian or Ubuntu, as root; installs what lacks.
#   up.sh FOLDER      FOLDER, below /tmp, is emptied
set -euo pipefail
folder=$(realpath -m "${1:?usage: up.sh FOLDER}")
[[ $folder == /tmp/?* ]] || { echo "up.sh: $folder is not below /tmp" >&2; exit 2; }
((EUID == 0)) || { echo "up.sh: Slurm's daemons are started as root" >&2; exit 2; }
nodes=(n1 n2)

if ! command -v slurmctld slurmd munged setpriv >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge hostname procps >/dev/null
fi
if [[ -e /etc/slurm/slurm.conf && ! /etc/slurm/slurm.conf -ef $folder/slurm.conf && ! -L /etc/slurm/slurm.conf ]]; then
    echo "up.sh: /etc/slurm/slurm.conf is there already; this machine belongs to another cluster" >&2
    exit 2
fi
rm -rf "$folder"
mkdir -p "$folder"/{state,log,run,devices} /run/munge /etc/slurm
chown munge: /run/munge

if ! munge -n >/dev/null 2>&1; then
    [[ -s /etc/munge/munge.key ]] || {
        head -c 1024 /dev/urandom >/etc/munge/munge.key
        chown munge: /etc/munge/munge.key
        chmod 400 /etc/munge/munge.key
    }
    setpriv --reuid=munge --regid=munge --clear-groups munged --pid-file /run/munge/munged.pid
fi

host=$(hostname -s)
cat >"$folder/slurm.conf" <<CONF
ClusterName=throwaway
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/run/spool.%n
SlurmctldPidFile=$folder/run/slurmctld.pid
SlurmdPidFile=$folder/run/slurmd.%n.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=256
MinJobAge=600
KillWait=5
SlurmdTimeout=60
GresTypes=gpu
CONF
# This Slurm insists on a cgroup plugin; these values of it need no cgroup mounted.
case "$(slurmd -V)" in *" 2"[0-2].*) plugin=cgroup/v1 ;; *) plugin=disabled ;; esac
echo "CgroupPlugin=$plugin" >"$folder/cgroup.conf"
port=17000
for node in "${nodes[@]}"; do
    # A GPU is a device file; nothing opens these.
    for number in {0..7}; do mknod -m 666 "$folder/devices/$node-gpu$number" c 1 3; done
    echo "NodeName=$node Name=gpu Type=pretended File=$folder/devices/$node-gpu[0-7]" >>"$folder/gres.conf"
    echo "NodeName=$node NodeHostname=$host NodeAddr=127.0.0.1 Port=$((++port)) CPUs=64 RealMemory=256000" \
        "Gres=gpu:pretended:8 State=UNKNOWN" >>"$folder/slurm.conf"
    grep -qw "$node" /etc/hosts || echo "127.0.0.1 $node" >>/etc/hosts
    mkdir -p "$folder/run/spool.$node"
done
echo "PartitionName=debug Nodes=ALL Default=YES DefaultTime=10 MaxTime=INFINITE OverSubscribe=FORCE:4 State=UP" >>"$folder/slurm.conf"
# Only the built-in place is read by jobs whose environment was cleaned of SLURM_CONF.
for file in slurm gres cgroup; do ln -sf "$folder/$file.conf" "/etc/slurm/$file.conf"; done

slurmctld -c
for node in "${nodes[@]}"; do slurmd -N "$node"; done
for _ in {1..100}; do
    [[ $(sinfo --noheader --Node --states=idle --format=%N 2>/dev/null | wc -l) == "${#nodes[@]}" ]] && exit 0
    sleep 0.1
done
echo "up.sh: the nodes did not come up:" >&2
grep -hi error "$folder"/log/*.log >&2
exit 1
