# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
# Guests whose I/O is put to the test: cases and tasks, as in tasks.sh.

geometry() {
    for d in $(disks); do
        value "disk $d $(attribute $d size) $(attribute $d queue/logical_block_size) $(attribute $d ro)"
        grep -q '\[none\]' "/sys/block/$d/queue/scheduler"
    done
    expect "$(ls /sys/block/$(disk 1)/mq | wc -l)" "$(nproc)" "number of hardware queues"
    for queue in /sys/block/$(disk 1)/mq/*; do interrupted_at_home "$queue"; done
}

# The processors of a list such as `0, 2-3`, one a line.
processors() { echo "$1" | tr -d ' ' | tr ',' '\n' | while IFS=- read -r from to; do seq "$from" "${to:-$from}"; done; }

# Whether each processor of one list is in another.
within() { for one in $(processors "$1"); do processors "$2" | grep -qx "$one" || return 1; done; }

# The processors that put requests into a hardware queue are those that its interrupt may go to, and it does go to one.
interrupted_at_home() {
    irq=$(awk -v name="avio_stor-q${1##*/}" '$NF == name { sub(":", "", $1); print $1 }' /proc/interrupts)
    own=$(cat $1/cpu_list) may=$(cat /proc/irq/$irq/smp_affinity_list) goes=$(cat /proc/irq/$irq/effective_affinity_list)
    within "$own" "$may" && within "$goes" "$own" || { echo "$1: processors $own, its interrupt $irq $may, now $goes"; return 1; }
}

# filesystem DISK PARTITION UNIT: partition the disk, make a file system, write files of so many bytes and multiples of that,
# and verify them after everything was dropped from memory.
filesystem() {
    d=/dev/$1
    printf 'label: gpt\n,%s\n' "$2" | sfdisk -q "$d"
    part=$(ls /dev/$1*1 | head -n1)
    mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 "$part"
    mount "$part" /mnt
    for i in 1 2 3 4 5 6 7 8; do head -c $((i * $3)) /dev/urandom > /mnt/file$i; done
    mkdir /mnt/dir; cp /mnt/file8 /mnt/dir/copy
    (cd /mnt && sha256sum file? dir/copy) > /tmp/sums
    cp /tmp/sums /mnt/sums
    sync; umount /mnt
    echo 3 > /proc/sys/vm/drop_caches; blockdev --flushbufs "$d"
    e2fsck -fn "$part"
    mount -o ro "$part" /mnt
    (cd /mnt && sha256sum -c /tmp/sums)
    umount /mnt
}

# Random writes of mixed sizes with a checksum in each block, then all read back and checked.
verified() {
    fio --name=verify --filename="/dev/$1" --rw=randrw --rwmixread=30 --bsrange=4k-64k --bs_unaligned=0 --blockalign=4k \
        --size="${3:-32m}" --direct=1 --ioengine=libaio --iodepth="$2" --numjobs=1 --verify=crc32c --verify_fatal=1 \
        --do_verify=1 --randrepeat=1 --output=/tmp/fio.out || { cat /tmp/fio.out; return 1; }
}

# All processors at once, each in a part of its own.
parallel() {
    fio --name=par --filename="/dev/$1" --rw=randwrite --bs=4k --size=8m --offset_increment=8m --numjobs="$(nproc)" \
        --direct=1 --ioengine=libaio --iodepth=16 --verify=crc32c --verify_fatal=1 --do_verify=1 --randrepeat=1 \
        --output=/tmp/fio.out || { cat /tmp/fio.out; return 1; }
}

# Durability: O_SYNC writes become FUA or a flush. Behind the partition, which the host will look at.
durable() {
    fio --name=sync --filename="/dev/$1" --rw=write --bs=8k --offset="${2:-128m}" --size=1m --sync=1 --direct=1 --ioengine=psync --fsync=4 \
        --verify=md5 --do_verify=1 --randrepeat=1 --output=/tmp/fio.out || { cat /tmp/fio.out; return 1; }
}

# Odd but legal: single blocks, the last blocks, a large request.
edges() {
    size=$(attribute $1 size); block=$(($(attribute $1 queue/logical_block_size) / 512))
    dd if=/dev/urandom of=/tmp/b bs=$((block * 512)) count=1
    for at in 0 1 $((size / block - 1)); do
        dd if=/tmp/b of=/dev/$1 bs=$((block * 512)) seek=$at count=1 conv=fsync
        echo 3 > /proc/sys/vm/drop_caches; blockdev --flushbufs /dev/$1
        dd if=/dev/$1 bs=$((block * 512)) skip=$at count=1 | cmp - /tmp/b
    done
    refused dd if=/tmp/b of=/dev/$1 bs=$((block * 512)) seek=$((size / block)) count=1
    dd if=/dev/urandom of=/tmp/big bs=1M count=8
    fio --name=big --filename=/dev/$1 --rw=write --bs=4m --size=16m --direct=1 --ioengine=libaio --iodepth=4 \
        --verify=crc32c --do_verify=1 --output=/tmp/fio.out || { cat /tmp/fio.out; return 1; }
}

# A pattern at a known place, for the host to find on the backing.
leave_pattern() {
    yes "AVIO was here, on $1." | head -c 1048576 > /tmp/pattern
    dd if=/tmp/pattern of=/dev/$1 bs=64k seek=16 conv=fsync
    value "pattern $1 $(sha256sum < /tmp/pattern | cut -d' ' -f1)"
}

read_only() {
    expect "$(attribute $1 ro)" 1 "read-only flag of $1"
    refused dd if=/dev/zero of=/dev/$1 bs=4k count=1 conv=fsync
    value "readonly $1 $(dd if=/dev/$1 bs=1M count=4 | sha256sum | cut -d' ' -f1)"
}

# Driver out and in again, three times; what was written is still there.
driver_reload() {
    sum=$(dd if=/dev/$1 bs=1M skip=1 count=1 | sha256sum)
    for i in 1 2 3; do rmmod avio_stor; load; done
    expect "$(dd if=/dev/$1 bs=1M skip=1 count=1 | sha256sum)" "$sum" "checksum after reload"
}

# Fewer queues than processors: each has some of them, and its interrupt goes there.
few_queues() {
    rmmod avio_stor
    insmod /avio_stor.ko queues=2
    wait_disks "$avio_disks"
    d=$(disk $1)
    expect "$(ls /sys/block/$d/mq | wc -l)" 2 "number of hardware queues"
    expect "$(cat /sys/block/$d/mq/*/cpu_list | tr ',' '\n' | wc -l)" "$(nproc)" "processors with a queue"
    for queue in /sys/block/$d/mq/*; do interrupted_at_home "$queue"; done
    verified "$d" 16 4m
    rmmod avio_stor; load
}

# Disks in order: 1 loop, 2 null_blk, 3 brd, 4 read-only loop.
task_stack() {
    run_case probe load
    run_case geometry geometry
    run_case filesystem filesystem "$(disk 1)" 100M 700000
    run_case verified-depth1 verified "$(disk 2)" 1 8m
    run_case verified-depth32 verified "$(disk 2)" 32
    run_case parallel parallel "$(disk 3)"
    run_case durable durable "$(disk 1)"
    run_case edges edges "$(disk 2)"
    [ "$(nproc)" -lt 3 ] || run_case few-queues few_queues 2
    run_case read-only read_only "$(disk 4)"
    for n in 2 3; do run_case pattern$n leave_pattern "$(disk $n)"; done
    run_case driver-reload driver_reload "$(disk 2)"
    dmesg | grep -i avio
}

# In a debug kernel: nothing is left behind by the driver that was removed, and that which is there has lost nothing. The
# first scan may see a pointer in flight, and objects have to be five seconds old.
no_leaks() {
    sleep 5
    for scan in 1 2; do echo scan >/sys/kernel/debug/kmemleak; done
    cat /sys/kernel/debug/kmemleak >/tmp/leaks
    [ ! -s /tmp/leaks ] || { cat /tmp/leaks >/dev/console; grep -c unreferenced /tmp/leaks; return 1; }
}

# A selection of the above, for kernels that are slow.
task_brief() {
    run_case probe load
    run_case geometry geometry
    run_case filesystem filesystem "$(disk 1)" 24M 87500
    run_case verified-depth32 verified "$(disk 2)" 32 8m
    run_case read-only read_only "$(disk 4)"
    for n in 2 3; do run_case pattern$n leave_pattern "$(disk $n)"; done
    run_case driver-reload driver_reload "$(disk 2)"
    [ ! -e /sys/kernel/debug/kmemleak ] || run_case no-leaks no_leaks
}

# As many queue pairs as there can be: one with an interrupt for each processor, and polled ones.
as_many_queues() {
    rmmod avio_stor
    insmod /avio_stor.ko poll_queues=48
    wait_disks "$avio_disks"
    expect "$(told get_info 'Queue pairs') $(told get_info 'Polled queue pairs')" "64 48" "number of queue pairs, and of polled ones"
    verified "$1" 16 4m
    fio --name=all --filename=/dev/$1 --rw=randwrite --bs=4k --size=1m --offset_increment=1m --numjobs="$(nproc)" --direct=1 \
        --ioengine=io_uring --hipri=1 --iodepth=4 --verify=crc32c --verify_fatal=1 --do_verify=1 --randrepeat=1 \
        --output=/tmp/fio.out || { cat /tmp/fio.out; return 1; }
}

task_queues() {
    run_case probe load
    run_case pattern leave_pattern "$(disk 1)"
    run_case as-many-queues as_many_queues "$(disk 1)"
}
