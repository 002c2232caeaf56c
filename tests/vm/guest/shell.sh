# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
# A guest that does what its host says. Each line of the console is `ID COMMAND`; what the command printed comes back as
# `GUEST-SAYS ID NUMBER …`, once, as the host can ask again for what it was, and then `GUEST-ANSWER ID CODE LINES`; all of it with
# lengths, as `say` has them. The functions of the other scripts are commands too.

task_shell() {
    stty -echo
    load
    say "GUEST-SHELL $(cat /proc/sys/kernel/random/boot_id)"
    while read -r id line; do
        (eval "$line") >"/tmp/answer$id" 2>&1
        code=$?
        awk -v id="$id" '{ said = "GUEST-SAYS " id " " NR " " $0; print said " =" length(said) }' "/tmp/answer$id"
        say "GUEST-ANSWER $id $code $(awk 'END { print NR }' "/tmp/answer$id")"
    done
}

# Requests of a disk that have ended, and its writes among them.
requests() { awk '{ print $1 + $5 + $12 + $16 }' "/sys/block/$1/stat"; }
writes() { awk '{ print $5 }' "/sys/block/$1/stat"; }

# Verified I/O on a disk in the background, round after round, until `end_beside`: a neighbour of whatever is done meanwhile.
# Returns when it is under way.
beside() {
    rm -f /tmp/stop /tmp/beside.code
    before=$(writes "$1")
    (
        while [ ! -e /tmp/stop ]; do
            fio --name=beside --filename="/dev/$1" --rw=randwrite --bs=4k --size=2m --iodepth=8 --direct=1 \
                --ioengine=libaio --verify=crc32c --do_verify=1 --verify_fatal=1 --output=/tmp/beside.out || break
        done
        [ -e /tmp/stop ]
        echo $? >/tmp/beside.code
    ) </dev/null >/tmp/beside.log 2>&1 &
    until [ "$(writes "$1")" != "$before" ]; do
        [ ! -s /tmp/beside.code ] || { cat /tmp/beside.out /tmp/beside.log; return 1; }
        sleep 0.05
    done
    echo "$1" "$(requests "$1")" >/tmp/beside.begun
}

# Ends it when it has done more than when `beside` returned; fails if it had found anything wrong.
end_beside() {
    read -r disk begun </tmp/beside.begun
    until [ "$(requests "$disk")" != "$begun" ] || [ -s /tmp/beside.code ]; do sleep 0.1; done
    touch /tmp/stop
    until [ -s /tmp/beside.code ]; do sleep 0.1; done
    rm /tmp/stop
    [ "$(cat /tmp/beside.code)" = 0 ] || { cat /tmp/beside.out /tmp/beside.log; return 1; }
    rm /tmp/beside.code
}

# Masks (1) or unmasks (0) the interrupt that tells of changes, of the adapter at a PCI address.
mask_changes() {
    find_queue "$1" 0
    devmem $((bar + 0x200c)) 32 "$2"
    expect $(($(devmem $((bar + 0x200c)) 32))) "$2" "the mask"
}

# Starts the adapter at a PCI address, which nobody must drive, so many times with a ring that lies nowhere.
start_badly() {
    bar=$(($(cut -d' ' -f1 "/sys/bus/pci/devices/$1/resource" | head -n 1)))
    printf '\006' | dd of="/sys/bus/pci/devices/$1/config" bs=1 seek=4 conv=notrunc 2>/dev/null
    for n in $(seq "$2"); do
        for setting in 0x20=1 0x24=1 0x804=0x10 0x818=64 0x30=1; do
            devmem $((bar + ${setting%=*})) 32 "${setting#*=}"
        done
        expect "$(($(devmem $((bar + 0x34)) 32))) $(($(devmem $((bar + 0x38)) 32)))" "2 17" "state and error" || return 1
        devmem $((bar + 0x30)) 32 0
    done
}

# QUEUE:TAG of a request of a disk that is in flight; fails if there is none.
stalled() {
    for queue in /sys/kernel/debug/block/$1/hctx*; do
        tag=$(sed -n 's/.*[{ ]\.tag=\([0-9]*\).*/\1/p' "$queue/busy" | head -n 1)
        [ -z "$tag" ] || { echo "${queue##*hctx}:$tag"; return 0; }
    done
    return 1
}

# Waits until a command says a value.
until_is() {
    wanted=$1; shift
    tries=0
    until [ "$("$@")" = "$wanted" ]; do
        tries=$((tries + 1))
        [ $tries -lt 1000 ] || { echo "$* says $("$@"), not $wanted"; return 1; }
        sleep 0.1
    done
}
