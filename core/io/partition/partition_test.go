package partition

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/blockdev"
)

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// samePartitions checks what Read says of dev.
func samePartitions(t *testing.T, dev blockdev.Device, want []Partition) {
	t.Helper()
	got, err := Read(dev)
	noError(t, err)
	if !slices.Equal(got, want) {
		t.Errorf("partitions:\n%swant\n%s", lines(got), lines(want))
	}
}

func lines(parts []Partition) (s string) {
	for _, p := range parts {
		s += fmt.Sprintf("\t%+v\n", p)
	}
	return s
}

// disk is a table that a real program made, and what it means. Its file under
// testdata is made by TestTools with -update.
type disk struct {
	name    string
	size    int64 // bytes
	program [][]string
	input   string // for the first program, if it is sfdisk
	want    []Partition
}

const (
	linuxFS = "0fc63daf-8483-4772-8e79-3d69d8477de4"
	efi     = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
	sda1    = "11111111-2222-4333-8444-555555555501"
	sda2    = "11111111-2222-4333-8444-555555555502"
	sda5    = "11111111-2222-4333-8444-555555555505"
	mib     = 1 << 20
)

func mbrPart(number int, startSector, sectors int64, kind string) Partition {
	return Partition{
		Number: number, Offset: startSector * 512, Length: sectors * 512, Type: kind,
		UUID: fmt.Sprintf("0123abcd-%02x", number), Scheme: "mbr",
	}
}

var sfdisk = [][]string{{"sfdisk", "--quiet", "DISK"}}

var gptParts = []Partition{
	{Number: 1, Offset: mib, Length: mib, Type: efi, Name: "EFI system", UUID: sda1, Scheme: "gpt"},
	{Number: 2, Offset: 2 * mib, Length: 3 * mib, Type: linuxFS, Name: "Wurzel ä", UUID: sda2, Scheme: "gpt"},
	{Number: 5, Offset: 5 * mib, Length: 2 * mib, Type: linuxFS, UUID: sda5, Scheme: "gpt"},
}

const gptInput = `label: gpt
label-id: 11111111-2222-4333-8444-555555555500
1: start=2048, size=2048, type=U, uuid=` + sda1 + `, name="EFI system"
2: start=4096, size=6144, type=L, uuid=` + sda2 + `, name="Wurzel ä"
5: start=10240, size=4096, type=L, uuid=` + sda5 + `
`

var disks = []disk{
	{
		name: "mbr-empty", size: 4 * mib, program: sfdisk,
		input: "label: dos\nlabel-id: 0x0123abcd\n",
	},
	{
		name: "mbr-primary", size: 8 * mib, program: sfdisk,
		input: `label: dos
label-id: 0x0123abcd
1: start=2048, size=4096, type=7, bootable
2: start=8192, size=2048, type=83
4: start=12288, size=4096, type=c
`,
		want: []Partition{mbrPart(1, 2048, 4096, "0x07"), mbrPart(2, 8192, 2048, "0x83"), mbrPart(4, 12288, 4096, "0x0c")},
	},
	{
		name: "mbr-logical", size: 16 * mib, program: sfdisk,
		input: `label: dos
label-id: 0x0123abcd
1: start=2048, size=2048, type=83
2: start=4096, size=20480, type=f
5: start=6144, size=2048, type=83
6: start=10240, size=4096, type=82
7: start=16384, size=8192, type=8e
`,
		want: []Partition{
			mbrPart(1, 2048, 2048, "0x83"), mbrPart(5, 6144, 2048, "0x83"),
			mbrPart(6, 10240, 4096, "0x82"), mbrPart(7, 16384, 8192, "0x8e"),
		},
	},
	{
		name: "mbr-extended-chs", size: 8 * mib, program: sfdisk,
		input: `label: dos
label-id: 0x0123abcd
1: start=2048, size=12288, type=5
5: start=4096, size=2048, type=83
6: start=8192, size=2048, type=7
`,
		want: []Partition{mbrPart(5, 4096, 2048, "0x83"), mbrPart(6, 8192, 2048, "0x07")},
	},
	{
		name: "mbr-extended-linux", size: 8 * mib, program: sfdisk,
		input: `label: dos
label-id: 0x0123abcd
1: start=2048, size=12288, type=85
2: start=14336, size=2048, type=83
5: start=4096, size=2048, type=83
`,
		want: []Partition{mbrPart(2, 14336, 2048, "0x83"), mbrPart(5, 4096, 2048, "0x83")},
	},
	{name: "gpt", size: 8 * mib, program: sfdisk, input: gptInput, want: gptParts},
	{
		name: "gpt-empty", size: 4 * mib, program: sfdisk,
		input: "label: gpt\nlabel-id: 11111111-2222-4333-8444-555555555500\n",
	},
	{
		name: "gpt-hybrid", size: 8 * mib, input: gptInput,
		program: append(sfdisk[:1:1], []string{"sgdisk", "--hybrid=1:2", "DISK"}),
		want:    gptParts,
	},
	{
		name: "gpt-1024-entries", size: 8 * mib,
		program: [][]string{{
			"sgdisk", "--clear", "--resize-table=1024", "--disk-guid=11111111-2222-4333-8444-555555555500",
			"--new=1:4096:6143", "--partition-guid=1:" + sda1, "--change-name=1:first 🌳",
			"--new=1024:8192:10239", "--partition-guid=1024:" + sda2, "--typecode=1024:" + efi, "DISK",
		}},
		want: []Partition{
			{Number: 1, Offset: 2 * mib, Length: mib, Type: linuxFS, Name: "first 🌳", UUID: sda1, Scheme: "gpt"},
			{Number: 1024, Offset: 4 * mib, Length: mib, Type: efi, UUID: sda2, Scheme: "gpt"},
		},
	},
}

func TestReadsTablesOfRealPrograms(t *testing.T) {
	for _, d := range disks {
		t.Run(d.name, func(t *testing.T) { samePartitions(t, golden(t, d.name), d.want) })
	}
}

func TestReadsPartitionsThroughASection(t *testing.T) {
	outer := blockdev.NewMemory(32 * mib)
	inner, err := blockdev.NewSection(outer, mib, 16*mib)
	noError(t, err)
	from := golden(t, "mbr-logical")
	noError(t, copyDevice(inner, from))
	want, err := Read(from)
	noError(t, err)
	samePartitions(t, inner, want)
	samePartitions(t, outer, nil)
}

func TestNoTableIsNoError(t *testing.T) {
	text := blockdev.NewMemory(4096)
	_, err := text.WriteAt([]byte("this is a text file"), 0)
	noError(t, err)
	// The boot sector of a file system has the signature, and code where the
	// entries would be.
	bootSector := blockdev.NewMemory(4096)
	put(t, bootSector, 446, []byte("NTLDR is missing"))
	put(t, bootSector, 510, []byte{0x55, 0xaa})
	for name, dev := range map[string]blockdev.Device{
		"zeros": blockdev.NewMemory(mib), "a sector": blockdev.NewMemory(512), "text": text, "boot sector": bootSector,
	} {
		t.Run(name, func(t *testing.T) { samePartitions(t, dev, nil) })
	}
}

func TestMBRWithoutAnIdentifierHasNoUUIDs(t *testing.T) {
	dev := golden(t, "mbr-logical")
	put(t, dev, 440, make([]byte, 4))
	parts, err := Read(dev)
	noError(t, err)
	for _, p := range parts {
		if p.UUID != "" {
			t.Errorf("%+v", p)
		}
	}
	if len(parts) != 4 {
		t.Errorf("%d partitions, want 4", len(parts))
	}
}

// faulty is a device with a range that can't be read.
type faulty struct {
	*blockdev.Memory
	off, n int64
}

var errMedium = errors.New("medium error")

func (f *faulty) ReadAt(p []byte, off int64) (int, error) {
	if off < f.off+f.n && f.off < off+int64(len(p)) {
		return 0, errMedium
	}
	return f.Memory.ReadAt(p, off)
}

func TestDeviceErrorsComeThrough(t *testing.T) {
	tests := []struct {
		name, disk string
		sector     int64
		fails      bool
	}{
		{"the MBR", "mbr-primary", 0, true},
		{"an extended boot record", "mbr-logical", 4096, true},
		{"the last extended boot record", "mbr-logical", 14336, true},
		{"a GPT's header", "gpt", 1, true},
		{"a GPT's entries", "gpt", 2, true},
		{"the backup of a good GPT", "gpt", 8*mib/512 - 1, false},
		{"a sector that is of no table", "gpt", 4096, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Read(&faulty{golden(t, tt.disk), tt.sector * 512, 512})
			if tt.fails != errors.Is(err, errMedium) || !tt.fails && err != nil {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

func TestReadAfterCloseIsTheDevicesError(t *testing.T) {
	dev := golden(t, "gpt")
	noError(t, dev.Close())
	if _, err := Read(dev); !errors.Is(err, blockdev.ErrClosed) {
		t.Errorf("the error is %v", err)
	}
}
