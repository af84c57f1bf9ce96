# A server that is killed: its guest gets errors and not silence, the list
# shows it, unmount clears the minor, and what was flushed is there.
# shellcheck shell=sh disable=SC1091,SC2154
. /guest/lib.sh
scratch ext4
module
vhdmount create 512M /mnt/s/disk.vhd
disk=$(vhdmount mount --frontend blktap /mnt/s/disk.vhd)
dd if=/dev/urandom of=/tmp/data bs=1M count=8 2>/dev/null
dd if=/tmp/data of="$disk" bs=1M conv=fsync 2>/dev/null
# One request at a time: what the module of openxt has queued beyond its ring
# when the ring goes, it never answers.
fio --eta=never --name=load --filename="$disk" --offset=64M --rw=randwrite --bs=4k --iodepth=1 --ioengine=psync --direct=1 --size=64M \
	--time_based --runtime=60 --minimal --output=/tmp/load.log &
load=$!
sleep 4
pid=$(server /mnt/s/disk.vhd)
kill -KILL "$pid"
await 20 gone "$pid"
wait $load && fail "fio noticed nothing"
want "$(vhdmount list)" dead
vhdmount unmount "$disk"
equal "$(vhdmount list --json)" "[]"
[ ! -e "$disk" ] || fail "$disk is still there"
await 20 no_minors
vhdmount check /mnt/s/disk.vhd

# A tapdisk, with the socket it leaves behind.
disk=$(vhdmount mount --frontend blktap /mnt/s/disk.vhd)
dd if="$disk" bs=1M count=8 2>/dev/null | cmp - /tmp/data
vhdmount unmount "$disk"
disk=$(vhdmount tap create -a vhd:/mnt/s/disk.vhd)
minor=${disk#"$dir"/tapdev}
pid=$(vhdmount tap list | sed -n 's/^pid=\([0-9]*\).*/\1/p')
kill -KILL "$pid"
await 20 gone "$pid"
vhdmount tap list
vhdmount tap free -m "$minor"
disk=$(vhdmount tap create -a vhd:/mnt/s/disk.vhd)
dd if="$disk" bs=1M count=8 2>/dev/null | cmp - /tmp/data
pid=$(vhdmount tap list | sed -n 's/^pid=\([0-9]*\) minor=.*args=.*disk.vhd/\1/p')
vhdmount tap destroy -m "${disk#"$dir"/tapdev}" -p "$pid"
rmmod blktap
