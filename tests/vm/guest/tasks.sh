# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
# What test guests do, in busybox shell. A case is a function; its result goes to the console as
# `GUEST-RESULT NUMBER pass|fail NAME SECONDS DETAIL`, a value for the host's side as `GUEST-VALUE NAME VALUE`. What cases share is
# here, and tasks that have none; the others are in io.sh and administration.sh.

# Says a line to the host: twice, and with its length behind, for the kernel's words and the VMM's come in the middle of ours.
say() {
    said="$*"
    for copy in 1 2; do echo "$said =${#said}"; done
}

now() { cut -d' ' -f1 /proc/uptime; }

# run_case NAME COMMAND…: the last line of what it printed is the detail of a failure.
run_case() {
    name=$1; shift
    begun=$(now)
    (set -e; "$@") >/tmp/out 2>&1 # not as a condition: there, the shell would ignore set -e
    if [ $? = 0 ]; then verdict=pass; detail=; else verdict=fail; detail=$(tail -n 3 /tmp/out | tr '\n' '/'); fi
    results=$((results + 1))
    say "GUEST-RESULT $results $verdict $name $(echo "$(now) $begun" | awk '{printf "%.2f", $1 - $2}') $detail"
}

value() { say "GUEST-VALUE $*" >/dev/console; }

# refused COMMAND…: it must fail.
refused() { if "$@"; then echo "not refused: $*"; return 1; fi; }

# Our disks, by name: those whose device is driven by avio_stor.
disks() { ls -d /sys/block/avio* 2>/dev/null | sed 's,.*/,,' | sort -V; }
disk() { disks | sed -n "$1p"; }
attribute() { cat "/sys/block/$1/$2"; }

wait_disks() {
    tries=0
    while [ "$(disks | wc -l)" -lt "$1" ]; do
        tries=$((tries + 1))
        [ $tries -lt 1000 ] || { echo "only $(disks | wc -l) of $1 disks came"; return 1; }
        sleep 0.1
    done
}

expect() { [ "$1" = "$2" ] || { echo "$3 is $1, not $2"; return 1; }; }

load() { insmod /avio_stor.ko && wait_disks "$avio_disks"; }

# A short sign of life.
task_hello() {
    run_case probe load
    run_case pattern leave_pattern "$(disk 1)"
}

# Reset instead of power-off.
task_reset() {
    run_case probe load
    say GUEST-RESETS
    reboot -f
}

# I/O without end, for a host that does something to us meanwhile.
task_busy() {
    load
    say GUEST-BUSY
    fio --name=busy --filename=/dev/$(disk 1) --rw=randrw --bs=16k --size=64m --time_based --runtime=3600 --direct=1 \
        --ioengine=libaio --iodepth=32 --randrepeat=1 --output=/tmp/fio.out
}

# Goes on with the file system of the first disk as root.
task_root() {
    load
    mount "/dev/$(disk 1)" /mnt
    for where in proc sys dev; do mount --move /$where /mnt/$where; done
    exec switch_root -c /dev/console /mnt /bin/sh /tasks.sh on_root
}

# The rest of it, in a new shell.
on_root() {
    export PATH=/bin:/usr/bin:/usr/sbin:/sbin
    echo "by a guest" >/written
    value "root $(awk '$2 == "/" { print $1, $3 }' /proc/mounts | tail -n 1)"
    mount -o remount,ro /
    poweroff -f
}

# The kernel that takes over when another has crashed: the memory of that goes onto the disk of a LUN.
task_dump() {
    load
    dd if=/proc/vmcore "of=/dev/$(grep -lx "$avio_lun" /sys/block/avio*/lun | cut -d/ -f4)" bs=1M conv=fsync || return
    value "dumped $(stat -c %s /proc/vmcore)"
}

task_demo() { . /demo.sh; }
task_bench() { . /bench.sh; }

[ "$1" != on_root ] || on_root
