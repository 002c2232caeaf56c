# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
# The guest's part of `make demo`: what somebody would type. Sourced by tasks.sh.

show() { echo "# $*"; "$@" 2>&1 || { echo "GUEST-FAILED $*"; sync; poweroff -f; }; }

show insmod /avio_stor.ko
wait_disks 1
d=$(disk 1)
dmesg | grep 'avio_stor [0-9]' | sed 's/^\[ *[0-9.]*\] //'
echo "The disk is /dev/$d: $(($(attribute $d size) / 2048)) MiB, $(ls /sys/block/$d/mq | wc -l) queues, scheduler $(attribute $d queue/scheduler)"
echo "# echo 'label: gpt / ,' | sfdisk /dev/$d"
printf 'label: gpt\n,\n' | sfdisk -q /dev/$d || echo "GUEST-FAILED sfdisk"
part=$(ls -d /dev/$d?*1 /dev/${d}1 2>/dev/null | head -n1)
show mkfs.ext4 -q -L AVIO "$part"
show mount "$part" /mnt
echo "# writing eight files"
for i in 1 2 3 4 5 6 7 8; do head -c $((i * 500000)) /dev/urandom >/mnt/file$i; done
(cd /mnt && sha256sum file? | tee sums | sed 's/^\(................\).*  /\1…  /')
show umount /mnt
echo 3 >/proc/sys/vm/drop_caches
blockdev --flushbufs /dev/$d
show mount -o ro "$part" /mnt
show sh -c 'cd /mnt && sha256sum -c sums'
show umount /mnt
say GUEST-DONE
sleep 3
