# swap FRONTEND TYPE: swap on a disk that is served here, in a machine that has
# less memory than its programs use. What the server needs to write a page must
# not wait for that page to be written: a block device has its server's memory
# locked, and a dynamic image, for which the file system below must find space,
# is written past the page cache. A file in FUSE can't have that; there the
# program that swaps is held within a part of the memory, so that the rest is
# left for all others.
# shellcheck shell=sh disable=SC1091
. /guest/lib.sh
scratch ext4
vhdmount create --type "$2" 384M /mnt/s/swap.vhd
mkdir /mnt/t /mnt/v
total=$(awk '/^MemTotal/ { print int($2 / 1024) }' /proc/meminfo)
size=$((total * 3 / 2)) # of a file in memory, in MiB
case $1 in
blktap)
	module
	flags=
	[ "$2" = fixed ] || flags=--direct-io
	disk=$(vhdmount mount --frontend blktap $flags /mnt/s/swap.vhd)
	device=$disk
	;;
fuse)
	disk=$(vhdmount mount /mnt/s/swap.vhd /mnt/v)
	device=$(losetup --find --show --direct-io=on "$disk")
	size=$((total * 9 / 10))
	mkdir -p /sys/fs/cgroup
	mount -t cgroup2 none /sys/fs/cgroup
	echo +memory >/sys/fs/cgroup/cgroup.subtree_control
	mkdir /sys/fs/cgroup/bounded
	echo $((total / 3))M >/sys/fs/cgroup/bounded/memory.max
	;;
esac
if [ "$2" = fixed ]; then # all of its blocks are there from the start
	dd if=/dev/zero of="$device" bs=1M count=384 conv=fsync 2>/dev/null
	sync
fi
mkswap "$device" >/dev/null
swapon "$device"

# The file is written and checked.
mount -t tmpfs -o size=$((size + 16))m tmpfs /mnt/t
[ "$1" = blktap ] || echo $$ >/sys/fs/cgroup/bounded/cgroup.procs
fio --eta=never --name=memory --filename=/mnt/t/file --size="${size}m" --rw=write --bs=64k --ioengine=psync --fallocate=none \
	--verify=crc32c --do_verify=1 --verify_fatal=1 --minimal --output=/tmp/fio.log || fail "fio in memory"
[ "$1" = blktap ] || echo $$ >/sys/fs/cgroup/cgroup.procs
want "$(vhdmount list)" /mnt/s/swap.vhd
used=$(awk 'NR == 2 { print int($4 / 1024) }' /proc/swaps)
echo "memory $total MiB, file $size MiB, swapped $used MiB"
[ "$used" -ge $((total / 2)) ] || fail "only $used MiB were swapped"
rm /mnt/t/file
swapoff "$device"
[ "$1" = blktap ] || losetup -d "$device"
await 20 vhdmount unmount /mnt/s/swap.vhd
vhdmount check --bitmaps /mnt/s/swap.vhd
[ "$1" = fuse ] || rmmod blktap
