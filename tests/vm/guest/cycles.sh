# cycles COUNT: attach and detach so many times, with something written each
# time; then two disks at once.
# shellcheck shell=sh disable=SC1091,SC2154
. /guest/lib.sh
scratch ext4
module
vhdmount create 64M /mnt/s/disk.vhd
i=0
while [ $i -lt "$1" ]; do
	disk=$(vhdmount mount --frontend blktap /mnt/s/disk.vhd)
	[ $i = 0 ] || equal "$(head -c 6 "$disk" | tr -d '\0')" "$((i - 1))"
	printf '%s\0\0\0\0\0\0' "$i" | dd of="$disk" bs=4096 conv=sync,fsync 2>/dev/null
	vhdmount unmount "$disk"
	i=$((i + 1))
done
echo "$i cycles"
equal "$(vhdmount list --json)" "[]"
await 20 no_minors
vhdmount check /mnt/s/disk.vhd

vhdmount create 512M /mnt/s/one.vhd
vhdmount create 512M /mnt/s/two.vhd
one=$(vhdmount mount --frontend blktap /mnt/s/one.vhd)
two=$(vhdmount mount --frontend blktap /mnt/s/two.vhd)
[ "$one" != "$two" ] || fail "two disks are $one"
fio --eta=never --ioengine=libaio --direct=1 --rw=randwrite --bs=4k --iodepth=32 --size=16M --verify=crc32c --do_verify=1 --verify_fatal=1 \
	--minimal --output=/tmp/fio.log --name=one --filename="$one" --name=two --filename="$two" || fail "fio on two disks"
cmp -s -n 16777216 "$one" "$two" && fail "the two disks are one"
vhdmount unmount "$one"
vhdmount unmount "$two"
vhdmount check /mnt/s/one.vhd
vhdmount check /mnt/s/two.vhd
rmmod blktap
