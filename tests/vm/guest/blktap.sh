# vhdmount mount --frontend blktap: a block device from beginning to end.
# shellcheck shell=sh disable=SC1091,SC2154
. /guest/lib.sh
scratch ext4
vhdmount create 1G /mnt/s/disk.vhd
vhdmount mount --frontend blktap /mnt/s/disk.vhd >/tmp/out 2>&1 && fail "mounted without a module"
want "$(cat /tmp/out)" "blktap module is not loaded"

module
disk=$(vhdmount mount --frontend blktap /mnt/s/disk.vhd)
equal "$disk" "$dir"/tapdev0
[ -b "$disk" ] || fail "$disk is no block device"
equal "$(blockdev --getsize64 "$disk")" $((1 << 30))
equal "$(cat /sys/block/td*/queue/physical_block_size)" 4096
want "$(vhdmount list)" "$disk"
want "$(vhdmount info /mnt/s/disk.vhd)" dynamic
file_system "$disk"
verify /mnt/d/file 16M
verify /mnt/d/large 32M --rw=write --bs=1M
before=$(sum /mnt/d/file)
rm /mnt/d/large
fstrim -v /mnt/d

# A disk in use is refused to whoever would take it away, with who uses it.
pid=$(server /mnt/s/disk.vhd)
vhdmount unmount "$disk" 2>/tmp/refusal && fail "unmounted under a mount"
want "$(cat /tmp/refusal)" "mounted on /mnt/d"
kill -TERM "$pid"
sleep 2
gone "$pid" && fail "SIGTERM ended the server of a disk in use"
echo 3 >/proc/sys/vm/drop_caches
equal "$(sum /mnt/d/file)" "$before"
umount /mnt/d
e2fsck -fn "$disk"
if [ -e "$disk" ]; then vhdmount unmount "$disk"; fi
await 20 gone "$pid"
[ ! -e "$disk" ] || fail "$disk is still there"
equal "$(vhdmount list --json)" "[]"
vhdmount check /mnt/s/disk.vhd

# Read-only, and taken away by the image's name.
disk=$(vhdmount mount --frontend blktap --read-only /mnt/s/disk.vhd)
equal "$(blockdev --getro "$disk")" 1
mount -o ro,noload "$disk" /mnt/d
equal "$(sum /mnt/d/file)" "$before"
umount /mnt/d
dd if=/dev/zero of="$disk" bs=4096 count=1 conv=fsync 2>/dev/null && fail "a read-only disk was written to"
vhdmount unmount /mnt/s/disk.vhd

# SIGTERM when nobody has it open: all that was written is there.
disk=$(vhdmount mount --frontend blktap /mnt/s/disk.vhd)
mount "$disk" /mnt/d
echo kept >/mnt/d/word
umount /mnt/d
pid=$(server /mnt/s/disk.vhd)
kill -TERM "$pid"
await 20 gone "$pid"
[ ! -e "$disk" ] || fail "$disk outlived its server"
disk=$(vhdmount mount /mnt/s/disk.vhd)
want "$disk" "$dir"/tapdev
mount "$disk" /mnt/d
equal "$(cat /mnt/d/word)" kept
umount /mnt/d
vhdmount unmount "$disk"
rmmod blktap
