# Swap on a disk that is served here, in a machine that has less memory than
# its programs use: what the server needs to write a page must not
# wait for that page to be written. The same is true of the file system below
# the image: this one has all of its blocks from the start.
# shellcheck shell=sh disable=SC1091
. /guest/lib.sh
scratch ext4
vhdmount create --type fixed 384M /mnt/s/swap.vhd
mkdir /mnt/t
module
device=$(vhdmount mount --frontend blktap /mnt/s/swap.vhd)
dd if=/dev/zero of="$device" bs=1M count=384 conv=fsync 2>/dev/null
sync
mkswap "$device" >/dev/null
swapon "$device"

# A file in memory, larger than that, written and checked.
total=$(awk '/^MemTotal/ { print int($2 / 1024) }' /proc/meminfo)
size=$((total * 3 / 2))
mount -t tmpfs -o size=$((size + 16))m tmpfs /mnt/t
fio --eta=never --name=memory --filename=/mnt/t/file --size="${size}m" --rw=write --bs=64k --ioengine=psync --fallocate=none \
	--verify=crc32c --do_verify=1 --verify_fatal=1 --minimal --output=/tmp/fio.log || fail "fio in memory"
want "$(vhdmount list)" /mnt/s/swap.vhd
used=$(awk 'NR == 2 { print int($4 / 1024) }' /proc/swaps)
echo "memory $total MiB, file $size MiB, swapped $used MiB"
[ "$used" -ge $((total / 2)) ] || fail "only $used MiB were swapped"
rm /mnt/t/file
swapoff "$device"
vhdmount unmount /mnt/s/swap.vhd
vhdmount check /mnt/s/swap.vhd
rmmod blktap
