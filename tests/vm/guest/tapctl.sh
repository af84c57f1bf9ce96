# Xen's tap-ctl drives a tapdisk of this program's: one that it spawned, for
# which the program stands under tapdisk's name in tapdisk's place.
# shellcheck shell=sh disable=SC1091,SC2154
. /guest/lib.sh
scratch ext4
xen_module
vhdmount create 512M /mnt/s/disk.vhd
mount --bind /usr/sbin/vhdmount /usr/libexec/tapdisk
equal "$(tap-ctl allocate)" "$dir"/tapdev0
pid=$(tap-ctl spawn)
want "$(readlink "/proc/$pid/exe")" /tapdisk
tap-ctl attach -m 0 -p "$pid"
equal "$(tap-ctl list)" "pid=$pid minor=0 state=0"
tap-ctl open -m 0 -p "$pid" -a vhd:/mnt/s/disk.vhd
equal "$(tap-ctl list)" "pid=$pid minor=0 state=0 args=vhd:/mnt/s/disk.vhd"
file_system "$dir"/tapdev0
verify /mnt/d/file 8M
tap-ctl stats -m 0 -p "$pid" >/tmp/stats
want "$(cat /tmp/stats)" "{"
tap-ctl pause -m 0 -p "$pid"
want "$(tap-ctl list)" "state=0x2a"
vhdmount snapshot /mnt/s/disk.vhd /mnt/s/child.vhd
tap-ctl unpause -m 0 -p "$pid" -a vhd:/mnt/s/child.vhd
want "$(tap-ctl list)" "state=0 args=vhd:/mnt/s/child.vhd"
verify /mnt/d/second 8M
umount /mnt/d
e2fsck -fn "$dir"/tapdev0
tap-ctl close -m 0 -p "$pid"
tap-ctl detach -m 0 -p "$pid"
await 10 gone "$pid"
tap-ctl free -m 0
equal "$(tap-ctl list)" ""
vhd-util check -n /mnt/s/child.vhd
vhdmount check /mnt/s/child.vhd

# What this program spawns, and what it mounts, is seen there too.
pid=$(vhdmount tap spawn)
want "$(tap-ctl list)" "pid=$pid"
kill "$pid"
await 10 gone "$pid"
disk=$(vhdmount mount --frontend blktap /mnt/s/child.vhd)
want "$(tap-ctl list)" "args=vhd:/mnt/s/child.vhd"
vhdmount unmount "$disk"

# In one; two disks in two processes; the far end of bad input.
one=$(tap-ctl create -a vhd:/mnt/s/child.vhd)
truncate -s 32M /mnt/s/raw
two=$(tap-ctl create -a aio:/mnt/s/raw)
tap-ctl create -a vhd:/mnt/s/none.vhd && fail "an image that is not there was opened"
equal "$(tap-ctl list | wc -l)" 2
for disk in "$one" "$two"; do
	minor=${disk#"$dir"/tapdev}
	tap-ctl destroy -m "$minor" -p "$(tap-ctl list -m "$minor" | sed -n 's/^pid=\([0-9]*\).*/\1/p')"
done
equal "$(tap-ctl list)" ""
rmmod blktap
