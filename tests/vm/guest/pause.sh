# Pause, snapshot, unpause under load: by the verbs of tap, and by snapshot
# --live.
# shellcheck shell=sh disable=SC1091,SC2154
. /guest/lib.sh
scratch ext4
module

# load DEVICE SECONDS writes and checks in the background.
load() {
	fio --eta=never --name=load --filename="$1" --rw=randwrite --bs=4k --iodepth=16 --ioengine=libaio --direct=1 --size=24M \
		--time_based --runtime="$2" --verify=crc32c --verify_backlog=256 --verify_fatal=1 --minimal --output=/tmp/load.log &
	load=$!
}

vhdmount create 512M /mnt/s/base.vhd
vhdmount tap allocate
pid=$(vhdmount tap spawn)
vhdmount tap attach -m 0 -p "$pid"
vhdmount tap open -m 0 -p "$pid" -a vhd:/mnt/s/base.vhd
load "$dir"/tapdev0 20
sleep 4
vhdmount tap pause -m 0 -p "$pid"
want "$(vhdmount tap list)" "state=0x2a"
# What is paused is not written to, and is closed: another may have it.
before=$(sum /mnt/s/base.vhd)
vhdmount check /mnt/s/base.vhd
# An image that is not there leaves the disk paused, and says so.
vhdmount tap unpause -m 0 -p "$pid" -a vhd:/mnt/s/none.vhd 2>/tmp/refusal && fail "went on with no image"
want "$(cat /tmp/refusal)" "o such file"
want "$(vhdmount tap list)" "state=0x22a" # paused, and the last try to go on failed
vhdmount snapshot /mnt/s/base.vhd /mnt/s/child.vhd
vhdmount tap unpause -m 0 -p "$pid" -a vhd:/mnt/s/child.vhd
want "$(vhdmount tap list)" "state=0 args=vhd:/mnt/s/child.vhd"
wait $load || { cat /tmp/load.log; fail "fio over a pause"; }
equal "$(sum /mnt/s/base.vhd)" "$before"
vhdmount tap close -m 0 -p "$pid"
vhdmount tap detach -m 0 -p "$pid"
vhdmount tap free -m 0
vhdmount check /mnt/s/base.vhd
vhdmount check /mnt/s/child.vhd

# A live snapshot of a mounted image.
vhdmount create 512M /mnt/s/live.vhd
disk=$(vhdmount mount --frontend blktap /mnt/s/live.vhd)
load "$disk" 15
sleep 4
vhdmount snapshot --live /mnt/s/live.vhd /mnt/s/live-child.vhd
before=$(sum /mnt/s/live.vhd)
wait $load || { cat /tmp/load.log; fail "fio over a live snapshot"; }
equal "$(sum /mnt/s/live.vhd)" "$before"
vhdmount unmount "$disk"
vhdmount check /mnt/s/live.vhd
vhdmount check /mnt/s/live-child.vhd
rmmod blktap
