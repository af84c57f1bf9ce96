package format

import "testing"

func TestCreatorString(t *testing.T) {
	tests := []struct {
		creator    Creator
		text, name string
	}{
		{CreatorWindows, "win", "Windows or Hyper-V"},
		{CreatorVPC, "vpc", "Virtual PC"},
		{CreatorVirtualServer, "vs", "Virtual Server"},
		{CreatorQEMU, "qemu", "qemu-img"},
		{CreatorQEMUForce, "qem2", "qemu-img"},
		{CreatorTap, "tap", "XenServer"},
		{CreatorXenConvert, "CTXS", "XenConvert"},
		{CreatorDisk2VHD, "d2v", "Disk2vhd"},
		{CreatorAzure, "wa", "Azure"},
		{CreatorVirtualBox, "vbox", "VirtualBox"},
		{CreatorDiscUtils, "dutl", "DiscUtils"},
		{Creator{}, "", ""},
		{Creator{0, 'a', ' ', 'b'}, `\x00a b`, ""},
		{Creator{0x1b, '[', '2', 'J'}, `\x1b[2J`, ""}, // no escape sequence reaches a terminal
		{Creator{'"', 0xff, '\n', '\\'}, `"\xff\n\\`, ""},
	}
	for _, tt := range tests {
		if tt.creator.String() != tt.text || tt.creator.Name() != tt.name {
			t.Errorf("%x is %q, %q; want %q, %q", tt.creator[:], tt.creator, tt.creator.Name(), tt.text, tt.name)
		}
	}
}

func TestHostOSString(t *testing.T) {
	for os, want := range map[HostOS]string{HostWindows: "Wi2k", HostMac: "Mac", {}: ""} {
		if os.String() != want {
			t.Errorf("%x is %q, want %q", os[:], os, want)
		}
	}
}
