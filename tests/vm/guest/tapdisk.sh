# vhdmount tap drives Xen's tapdisk.
# shellcheck shell=sh disable=SC1091,SC2154
. /guest/lib.sh
scratch ext4
xen_module
export TAPDISK=/usr/libexec/tapdisk
vhdmount create 512M /mnt/s/disk.vhd
equal "$(vhdmount tap allocate)" "$dir"/tapdev0
pid=$(vhdmount tap spawn)
want "$(readlink "/proc/$pid/exe")" /usr/libexec/tapdisk
vhdmount tap attach -m 0 -p "$pid"
vhdmount tap open -m 0 -p "$pid" -a vhd:/mnt/s/disk.vhd
equal "$(vhdmount tap list)" "pid=$pid minor=0 state=0 args=vhd:/mnt/s/disk.vhd"
equal "$(vhdmount tap list)" "$(tap-ctl list)"
file_system "$dir"/tapdev0
verify /mnt/d/file 8M
vhdmount tap stats -m 0 -p "$pid" >/tmp/stats
want "$(cat /tmp/stats)" "{"
vhdmount tap pause -m 0 -p "$pid"
want "$(vhdmount tap list)" "state=0x2a"
vhdmount snapshot /mnt/s/disk.vhd /mnt/s/child.vhd
vhdmount tap unpause -m 0 -p "$pid" -a vhd:/mnt/s/child.vhd
want "$(vhdmount tap list)" "args=vhd:/mnt/s/child.vhd"
verify /mnt/d/second 8M
umount /mnt/d
vhdmount tap close -m 0 -p "$pid"
vhdmount tap detach -m 0 -p "$pid"
await 10 gone "$pid"
vhdmount tap free -m 0
vhdmount check /mnt/s/child.vhd
disk=$(vhdmount tap create -a vhd:/mnt/s/child.vhd)
e2fsck -fn "$disk"
pid=$(vhdmount tap list | sed -n 's/^pid=\([0-9]*\).*/\1/p')
vhdmount tap destroy -m "${disk#"$dir"/tapdev}" -p "$pid"
equal "$(vhdmount tap list)" ""
rmmod blktap
