# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
# The guest's part of the benchmark, sourced by tasks.sh: the loads that avio_cells names (LOAD:BLOCK:DEPTH:SECONDS, with
# commas between them), one after the other, on avio_disks disks: ours, or those whose names begin with avio_prefix. Each is
# steady avio_warm_up seconds after its first avio_first I/Os. It is counted over the seconds given, and then ended.

# bench_interrupts FILE: interrupts of all devices but the console's.
bench_interrupts() {
    awk '$1 ~ /^[0-9]+:$/ && !/ttyS0/ { for (i = 2; $i ~ /^[0-9]+$/; i++) n += $i } END { print n + 0 }' "$1"
}

# bench_sectors FILE…: sectors that disks have read and written.
bench_sectors() { awk '{ n += $3 + $7 } END { print n + 0 }' "$@"; }

# bench_sample NAME: keeps what there is to count; it is added up when the load is over.
bench_sample() {
    cat /proc/interrupts >/tmp/interrupts.$1
    cat $bench_stats >/tmp/stats.$1
}

# bench_spent COUNTER FILE: what came between two samples.
bench_spent() { echo $(($($1 /tmp/$2.last) - $($1 /tmp/$2.first))); }

# Once, as what is counted begins at these words.
value() { said="GUEST-VALUE $*"; echo "$said =${#said}" >/dev/console; }

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
    enough=$(($(bench_sectors $bench_stats) + avio_first * $2 / 512))
    fio --name=bench --filename="${files#:}" $(bench_load "$1") --bs="$2" --iodepth="$3" --numjobs="$(nproc)" \
        --direct=1 --ioengine=libaio --randrepeat=1 --norandommap --invalidate=0 --disk_util=0 --eta=never \
        --time_based --runtime="$avio_load" --output=/tmp/fio.out &
    fio=$!
    while [ "$(bench_sectors $bench_stats)" -le "$enough" ] && kill -0 "$fio"; do sleep 0.1; done
    sleep "$avio_warm_up"
    bench_sample first
    value "begun:$cell $4"
    sleep "$4"
    bench_sample last
    # The host's window began a little later.
    sleep 0.3
    if [ -n "$avio_close_look" ]; then
        sleep "$avio_close_look"
        value "over:$cell $avio_close_look"
    fi
    kill "$fio" || { cat /tmp/fio.out; echo "the load has ended by itself"; return 1; }
    wait "$fio"
    value "counted:$cell $(bench_spent bench_interrupts interrupts) $(bench_spent bench_sectors stats)"
done
