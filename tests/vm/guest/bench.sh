# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
# The guest's part of the benchmark, sourced by tasks.sh: the loads that avio_cells names (LOAD:BLOCK:DEPTH, with commas
# between them), one after the other, each for avio_ms, on avio_disks disks: ours, or those whose names
# begin with avio_prefix.

# Interrupts of all devices but the console's.
bench_interrupts() {
    awk '$1 ~ /^[0-9]+:$/ && !/ttyS0/ { for (i = 2; $i ~ /^[0-9]+$/; i++) n += $i } END { print n + 0 }' /proc/interrupts
}

bench_sectors() { awk '{ n += $3 + $7 } END { print n }' $bench_stats; }

# bench_load LOAD: what it is for fio.
bench_load() {
    case $1 in
    mix) echo "--rw=randrw --rwmixread=70" ;;
    *) echo "--rw=$1" ;;
    esac
}

if [ -n "$avio_prefix" ]; then
    disks() { ls /sys/block | grep "^$avio_prefix" | sort -V; }
    wait_disks "$avio_disks"
else
    load
fi
bench_disks=$(disks)
# Where the driver's functions lie, for a profile.
grep -qw avio_symbols /proc/cmdline && sed -n 's/\t\[avio_stor\]$/ [avio_stor]/; /\[avio_stor\]/s/^/GUEST-SYMBOL /p' /proc/kallsyms
files=$(printf ':/dev/%s' $bench_disks)
bench_stats=$(printf ' /sys/block/%s/stat' $bench_disks)
for cell in $(echo "$avio_cells" | tr ',' ' '); do
    set -- $(echo "$cell" | tr ':' ' ')
    interrupts=$(bench_interrupts) sectors=$(bench_sectors)
    echo "GUEST-BENCH $cell."
    fio --name=bench --filename="${files#:}" $(bench_load "$1") --bs="$2" --iodepth="$3" --numjobs="$(nproc)" \
        --direct=1 --ioengine=libaio --randrepeat=1 --norandommap --invalidate=0 --disk_util=0 --eta=never \
        --time_based --runtime="${avio_ms}ms" --output=/tmp/fio.out || cat /tmp/fio.out
    value "counted:$cell $(($(bench_interrupts) - interrupts)) $(($(bench_sectors) - sectors))"
done
