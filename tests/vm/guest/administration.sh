# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
# Guests that manage their adapter by gvsdmgr, and mend it: cases and tasks, as in tasks.sh.

# The value behind a label of gvsdmgr's.
told() { gvsdmgr "$1" -D /dev/gvsd0 ${3:+-q "$3"} | sed -n "s/^$2 *: //p" | head -n 1; }

# How many requests of a disk are in any class of latency.
timed() { gvsdmgr get_stat -D /dev/gvsd0 -q lun=/dev/$1 | awk '/^Took / { sum += $NF } END { print sum + 0 }'; }

# What the administrator sees and does: the adapter, its LUNs, counters of one LUN that leave another's alone, refusals.
administration() {
    expect "$(told get_info State)" ONLINE "the adapter's state"
    release=$(gvsdmgr --version | cut -d' ' -f2)
    expect "$(told get_info 'Driver release')" "$release" "the driver's release"
    expect "$(told get_info 'Host release')" "$release" "the host's release"
    expect "$(told get_info 'Hardware Path')" "$(basename "$(readlink -f /sys/block/$1/device)")" "the hardware path"
    expect "$(told get_info 'Device file' lun=/dev/$2)" /dev/$2 "the disk's name"
    expect "$(told get_info LUN lun=/dev/$2)" "$(attribute $2 lun)" "the LUN's number"
    expect "$(told get_info 'Serial number' lun=/dev/$2)" "$(attribute $2 serial)" "the serial number"
    expect "$(gvsdmgr get_info -D /dev/gvsd0 -q lun=all | grep -c '^LUN ')" "$(disks | wc -l)" "the number of LUNs"
    for d in $1 $2; do dd if=/dev/$d of=/dev/null bs=64k count=4 iflag=direct; done
    other=$(told get_stat Reads lun=/dev/$2)
    [ "$other" -ge 4 ]
    gvsdmgr clear_stat -D /dev/gvsd0 -q tgt=$(attribute $1 lun)
    expect "$(told get_stat Reads lun=/dev/$1)" 0 "reads of the cleared LUN"
    expect "$(told get_stat Reads lun=/dev/$2)" "$other" "reads of the other LUN"
    expect "$(told get_stat Reads tgt=$(attribute $2 lun))" "$other" "reads of the other LUN, by its target"
    dd if=/dev/$1 of=/dev/null bs=64k count=4 iflag=direct
    expect "$(told get_stat 'Bytes read' lun=/dev/$1)" 262144 "bytes read"
    gvsdmgr --json get_stat -D /dev/gvsd0 | grep -q '"interrupts": [1-9]'
    expect "$(told get_stat 'In flight' lun=/dev/$1)" 0 "requests in flight"
    dd if=/dev/zero of=/dev/$1 bs=64k count=2 oflag=direct conv=fsync
    all=0
    for kind in Reads Writes Flushes; do all=$((all + $(told get_stat $kind lun=/dev/$1))); done
    [ "$(told get_stat Flushes lun=/dev/$1)" -gt 0 ] && [ $all -ge 7 ]
    expect "$(timed $1)" $all "requests by how long they took"
    echo 0 >/sys/block/$1/queue/iostats
    dd if=/dev/$1 of=/dev/null bs=64k count=4 iflag=direct
    expect "$(timed $1)" $all "requests by how long they took, of a disk without statistics"
    echo 1 >/sys/block/$1/queue/iostats
    fio --name=merged --filename=/dev/$1 --rw=read --bs=4k --size=64k --direct=1 --ioengine=libaio --iodepth=16 \
        --iodepth_batch=16 --output=/tmp/fio.out
    [ "$(told get_stat Merges lun=/dev/$1)" -gt 0 ] || { echo "neighbours read together were not merged"; return 1; }
    for words in 'get_info -D /dev/gvsd7' 'get_info -D /dev/null' 'get_info -D /dev/gvsd0 -q lun=/dev/null' \
        'get_info -D /dev/gvsd0 -q lun=255' 'get_stat -D /dev/gvsd0 -q tgt=255' "-f replace_dsk -D /dev/gvsd0 -q lun=/dev/$1" '-f replace_dsk -D /dev/gvsd0' \
        '-f task_mgmt -D /dev/gvsd0 -q tgt=all' '-f task_mgmt -D /dev/gvsd0 -q lun=0 -t abort -r 99:0'; do
        refused gvsdmgr $words
    done
    # Without -f it asks first, and takes nothing but a yes for one.
    command="gvsdmgr task_mgmt -D /dev/gvsd0 -q lun_dsf=/dev/$2 -t reset"
    refused sh -c "echo n | $command"
    refused sh -c "$command </dev/null"
    expect "$(echo y | sh -c "$command" 2>/dev/null)" "done" "the answer to a reset that somebody agreed to"
}

# Task commands against requests in flight: all data is right, and nobody sees an error.
resets_under_load() {
    verified $1 32 16m & load=$!
    while kill -0 $load 2>/dev/null; do
        for which in all $(attribute $1 lun); do
            gvsdmgr -f task_mgmt -D /dev/gvsd0 -q tgt=$which -t reset >/dev/null || { kill $load; wait $load; return 1; }
        done
        sleep 0.05
    done
    wait $load
}

# Finds a queue of the adapter at a PCI address.
find_queue() {
    bar=$(cut -d' ' -f1 "/sys/bus/pci/devices/$1/resource" | head -n 1)
    block=$((bar + 0x800 + $2 * 0x20))
    completions=$(($(devmem $((block + 0x8)) 32) + ($(devmem $((block + 0xc)) 32) << 32)))
    control=$(($(devmem $((block + 0x10)) 32) + ($(devmem $((block + 0x14)) 32) << 32)))
    entries=$(devmem $((block + 0x18)) 32)
    doorbell=$((bar + 0x1000 + $2 * 4))
    vector=$((bar + 0x2000 + ($2 + 1) * 16 + 12))
}
# How often the whole adapter was reset.
adapter_resets() { dmesg | grep -c 'the adapter was reset' || :; }
# Writes a tail into its control block that cannot be.
scribble() { devmem $control 32 0x40000000; devmem $doorbell 32 0; }

# A queue whose ring is scribbled on, and which the device then stops, is mended by a reset of that queue; I/O that is
# under way comes through.
mended() {
    before=$(told get_info Resets) others=$(adapter_resets)
    find_queue "$(told get_info 'Hardware Path')" 0
    verified $1 16 4m & load=$!
    # The driver soon writes the right tail again: try until the device has seen the wrong one.
    tries=0
    while [ "$(told get_info Resets)" = "$before" ] && [ $tries -lt 2000 ]; do
        scribble
        tries=$((tries + 1))
    done
    wait $load
    # The last wrong tail may still be coming to light: a read by each processor is back when nothing is broken any more.
    for mask in 1 2; do taskset $mask dd if=/dev/$1 of=/dev/null bs=4k count=1 iflag=direct; done
    [ "$(told get_info Resets)" -gt "$before" ]
    expect "$(adapter_resets)" "$others" "resets of the whole adapter"
    expect "$(told get_info State)" ONLINE "the adapter's state"
}

# An adapter that is reset by somebody who clears Bus Master is started again when a request's time has run out, and the
# request comes through.
reset_by_others() {
    before=$(told get_info Resets)
    config=/sys/bus/pci/devices/$(told get_info 'Hardware Path')/config
    kept=$(cat /sys/block/$1/queue/io_timeout)
    echo 1000 >/sys/block/$1/queue/io_timeout
    written=$(awk '{ print $5 }' /sys/block/$1/stat)
    verified $1 16 16m & load=$!
    until [ "$(awk '{ print $5 }' /sys/block/$1/stat)" -gt "$written" ]; do kill -0 $load; done
    printf '\002' | dd of=$config bs=1 seek=4 conv=notrunc 2>/dev/null
    printf '\006' | dd of=$config bs=1 seek=4 conv=notrunc 2>/dev/null
    # One that is certainly lost, should the load have ended already.
    dd if=/dev/$1 of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null
    wait $load
    echo "$kept" >/sys/block/$1/queue/io_timeout
    expect "$(told get_info Resets)" $((before + 1)) "resets of the adapter"
    expect "$(told get_info State)" ONLINE "the adapter's state"
}

# A request that the device has answered, and whose completion the driver never sees: its interrupt is held back until the
# entry looks as before. At the third time-out the device says that it has no such request; the queue is reset, and the
# request sent again.
lost_request() {
    before=$(told get_info Resets) others=$(adapter_resets)
    queue=$(grep -lx 0 /sys/block/$1/mq/*/cpu_list | cut -d/ -f6)
    find_queue "$(told get_info 'Hardware Path')" "$queue"
    kept=$(cat /sys/block/$1/queue/io_timeout)
    # The first time-out, which may come after two thirds of this, must not come before the entry is put back.
    echo 6000 >/sys/block/$1/queue/io_timeout
    # Anywhere else what the driver says of it fails the run.
    dmesg -n 1
    dd if=/dev/$1 of=/tmp/there bs=4k count=1 iflag=direct
    devmem $vector 32 1
    entry=$((completions + $(devmem $((control + 4)) 32) % entries * 8))
    old=$(devmem $entry 32)
    taskset 1 dd if=/dev/$1 of=/tmp/found bs=4k count=1 iflag=direct & lost=$!
    while new=$(devmem $entry 32); [ "$new" = "$old" ]; do kill -0 $lost; done
    devmem $entry 32 $((new ^ 1 << 24))
    devmem $vector 32 0
    wait $lost
    cmp /tmp/there /tmp/found
    echo "$kept" >/sys/block/$1/queue/io_timeout
    expect "$(told get_info Resets)" $((before + 1)) "resets"
    expect "$(adapter_resets)" "$others" "resets of the whole adapter"
    expect "$(told get_info State)" ONLINE "the adapter's state"
    dmesg | grep -q 'any more and never answered it; resetting the queue'
    dmesg -n 5
}

# An open node outlives its device; the module stays until it is closed.
node_outlives_device() {
    address=$(told get_info 'Hardware Path')
    exec 9</dev/gvsd0
    echo "$address" >/sys/bus/pci/drivers/avio_stor/unbind
    expect "$(disks | wc -l)" 0 "number of disks of an unbound adapter"
    [ ! -e /dev/gvsd0 ]
    refused rmmod avio_stor
    exec 9<&-
    echo "$address" >/sys/bus/pci/drivers/avio_stor/bind
    wait_disks "$avio_disks"
}

# Polled I/O: the data is right, and the polled queue raises no interrupt.
polled() {
    rmmod avio_stor
    insmod /avio_stor.ko queues=1 poll_queues=1 coalesce=0
    wait_disks "$avio_disks"
    expect "$(told get_info 'Polled queue pairs')" 1 "number of polled queues"
    d=$(disk $1)
    gvsdmgr clear_stat -D /dev/gvsd0
    fio --name=polled --filename=/dev/$d --rw=randwrite --bs=4k --size=4m --direct=1 --ioengine=io_uring --hipri=1 --iodepth=8 \
        --verify=crc32c --verify_fatal=1 --do_verify=1 --randrepeat=1 --output=/tmp/fio.out || { cat /tmp/fio.out; return 1; }
    done=$(told get_stat Completions); raised=$(told get_stat Interrupts)
    [ "$done" -ge 2048 ] && [ "$raised" -lt 200 ] || { echo "$done completions, $raised interrupts"; return 1; }
    looked=$(told get_stat Polls); found=$(told get_stat 'Polls that found some')
    [ "$found" -gt 0 ] && [ "$found" -le "$looked" ] || { echo "$found of $looked polls found completions"; return 1; }
    rmmod avio_stor; load
}

# Reads a disk, so many requests at a time; how many interrupts came with a hundred completions.
interrupts_at_depth() {
    gvsdmgr clear_stat -D /dev/gvsd0 >/dev/null
    fio --name=depth --filename="/dev/$1" --rw=randread --bs=4k --size=8m --direct=1 --ioengine=libaio --iodepth="$2" \
        --randrepeat=1 --output=/tmp/fio.out || { cat /tmp/fio.out; return 1; }
    raised=$(told get_stat Interrupts) ended=$(told get_stat Completions)
    echo $((100 * raised / ended))
}

# Whether most of the requests that were counted took longer than the driver ever looks for the completion of a lone one.
beyond_a_look() {
    gvsdmgr get_stat -D /dev/gvsd0 | awk '/^Took / { all += $NF; if ($2 >= 512) slow += $NF } END { exit 2 * slow <= all }'
}

# Interrupts are spared at any depth: ahead, or as a lone request is waited for, if the machine is quick enough for that.
# Switched off, each lone request has one. The data are the same. Where the machine is busy with something else, a round may
# spare none. Of many requests at once, most need no doorbell.
coalesced() {
    for on in 0 1; do
        rmmod avio_stor
        insmod /avio_stor.ko coalesce=$on
        wait_disks "$avio_disks"
        verified "$(disk $1)" 32 8m
        for depth in 1 32; do
            for round in $(seq 10); do
                share=$(interrupts_at_depth "$(disk $1)" $depth) || { echo "$share"; return 1; }
                rung=$(told get_stat Doorbells) ended=$(told get_stat Completions)
                { [ "$on" = 0 ] || [ "$share" -lt 80 ]; } && { [ $depth = 1 ] || [ $((2 * rung)) -lt "$ended" ]; } && break
            done
            value "coalesce=$on, depth $depth" "$share interrupts for 100 completions, $rung doorbells for $ended requests"
            case $on,$depth in
                0,1) [ "$share" -ge 90 ] || { echo "coalesce=0: $share interrupts for 100 lone requests"; return 1; } ;;
                1,1) [ "$share" -lt 80 ] || beyond_a_look || { echo "coalesce=1: $share interrupts for 100 lone requests"; return 1; } ;;
                1,*) [ "$share" -lt 80 ] || { echo "coalesce=1, depth $depth: $share interrupts for 100 completions"; return 1; } ;;
            esac
            [ $depth = 1 ] || [ $((2 * rung)) -lt "$ended" ] || { echo "coalesce=$on: $rung doorbells for $ended requests"; return 1; }
        done
    done
}

# The driver's administration, beyond I/O. Disks in order: 1, 2 and 3 null_blk, 4 a slow null_blk.
task_admin() {
    run_case probe load
    run_case administration administration "$(disk 2)" "$(disk 3)"
    run_case resets-under-load resets_under_load "$(disk 2)"
    run_case broken-queue-mended mended "$(disk 2)"
    run_case reset-by-others reset_by_others "$(disk 2)"
    run_case lost-request lost_request "$(disk 4)"
    run_case node-outlives-device node_outlives_device
    run_case coalesced coalesced 2
    run_case polled polled 2
    # Said once more, what `lost_request` has provoked would fail the run.
    dmesg | grep -i avio | grep -v 'any more and never answered it'
}
