# The wiki page "Mounting a .vhd disk image using blktap/tapdisk", by its
# letter, with vhdmount's name in tap-ctl's place.
# shellcheck shell=sh disable=SC1091,SC2154
. /guest/lib.sh
scratch ext4
vhdmount create 1G /mnt/s/disk.vhd
vhdmount tap check >/tmp/out 2>&1 && fail "check found a module"
module
vhdmount tap check
equal "$(vhdmount tap allocate)" "$dir"/tapdev0
equal "$(vhdmount tap minors)" 0
# On a terminal it says what the number is.
script -qec "vhdmount tap spawn" /tmp/terminal >/dev/null
want "$(cat /tmp/terminal)" "tapdisk spawned with pid "
pid=$(sed -n 's/.*tapdisk spawned with pid \([0-9]*\).*/\1/p' /tmp/terminal)
vhdmount tap attach -m 0 -p "$pid"
vhdmount tap open -m 0 -p "$pid" -a vhd:/mnt/s/disk.vhd
equal "$(vhdmount tap list)" "pid=$pid minor=0 state=0 args=vhd:/mnt/s/disk.vhd"
file_system "$dir"/tapdev0
verify /mnt/d/file 16M
fstrim /mnt/d
vhdmount tap stats -m 0 -p "$pid" >/tmp/stats
want "$(cat /tmp/stats)" "{"
vhdmount tap close -m 0 -p "$pid" -t 2 2>/tmp/refusal && fail "closed under a mount"
cat /tmp/refusal
umount /mnt/d
e2fsck -fn "$dir"/tapdev0
vhdmount tap close -m 0 -p "$pid"
vhdmount tap detach -m 0 -p "$pid"
await 10 gone "$pid"
vhdmount tap free -m 0
[ ! -e "$dir"/tapdev0 ] || fail "free left the node"
equal "$(vhdmount tap list)" ""
vhdmount check /mnt/s/disk.vhd

# The same in one, of a raw image.
truncate -s 64M /mnt/s/raw
disk=$(vhdmount tap create -a aio:/mnt/s/raw)
dd if=/dev/urandom of="$disk" bs=1M count=64 conv=fsync 2>/dev/null
equal "$(sum "$disk")" "$(sum /mnt/s/raw)"
pid=$(vhdmount tap list | sed -n 's/^pid=\([0-9]*\).*/\1/p')
vhdmount tap destroy -m "${disk#"$dir"/tapdev}" -p "$pid"
equal "$(vhdmount tap list)" ""
rmmod blktap
