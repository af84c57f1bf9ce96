# fuse FILESYSTEM: a dynamic disk with that file system, through a loop device
# over the mounted disk; the root file system is read-only all the while.
# shellcheck shell=sh disable=SC1091
. /guest/lib.sh
refusal=$(touch /here 2>&1) && fail "the root file system is not read-only"
want "$refusal" "Read-only"

fs=$1
case $fs in ext4) scratch xfs ;; *) scratch ext4 ;; esac
vhdmount create 2G /mnt/s/disk.vhd
mkdir /mnt/v /mnt/d
equal "$(vhdmount mount /mnt/s/disk.vhd /mnt/v)" /mnt/v/disk.raw
want "$(vhdmount list)" /mnt/v
loop=$(losetup --find --show --direct-io=on /mnt/v/disk.raw)
mkfs."$fs" -q "$loop"
mount "$loop" /mnt/d
verify /mnt/d/file 16M
verify /mnt/d/large 32M --rw=write --bs=128k
want "$(cat /sys/block/"${loop#/dev/}"/loop/dio)" 1
before=$(sum /mnt/d/file)
rm /mnt/d/large
fstrim -v /mnt/d

# What the guest sees busy is refused, and goes on.
vhdmount unmount /mnt/v 2>/tmp/refusal && fail "unmounted under a loop device"
want "$(cat /tmp/refusal)" "in use"
umount /mnt/d
losetup -d "$loop"
await 20 vhdmount unmount /mnt/v
equal "$(vhdmount list --json)" "[]"
vhdmount check /mnt/s/disk.vhd

# A snapshot of it, mounted afresh, has the file and takes another.
vhdmount snapshot /mnt/s/disk.vhd /mnt/s/child.vhd
vhdmount mount /mnt/s/child.vhd /mnt/v
loop=$(losetup --find --show /mnt/v/disk.raw)
case $fs in
ext4) e2fsck -fn "$loop" ;;
xfs) xfs_repair -n "$loop" ;;
esac
mount "$loop" /mnt/d
equal "$(sum /mnt/d/file)" "$before"
verify /mnt/d/second 8M --fsync=64
umount /mnt/d
losetup -d "$loop"
await 20 vhdmount unmount /mnt/v
vhdmount check /mnt/s/child.vhd
umount /mnt/s
