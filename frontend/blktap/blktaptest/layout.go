package blktaptest

// The interface's numbers, as its C header has them, in bytes.
const (
	pageSize    = 4096
	sectorSize  = 512
	ringSize    = 32
	segmentMax  = 11
	slotSize    = 112
	memorySize  = (1 + ringSize*segmentMax) * pageSize
	pageSectors = pageSize / sectorSize
	minors      = 1024
)

// Offsets in the ring page and in a slot.
const (
	atReqProd = 0
	atRspProd = 8
	atMessage = 16
	atSlots   = 64
)

// Operations.
const (
	opRead uint8 = iota
	opWrite
	opFlush
	opTrim
)

// Messages.
const (
	messagePause  = 1
	messageResume = 2
	messageClose  = 3
)

// Flags of a device info.
const (
	flagRO     = 1
	flagPSZ    = 2
	flagFlush  = 4
	flagTrim   = 8
	flagTrimRZ = 16
)

// Variant is one of the modules in the field.
type Variant int

// The variants.
const (
	DKMS      Variant = iota // Ubuntu's package
	OpenXT                   // the one that builds on 6.1
	XenServer                // of XenServer's and XCP-ng's kernels
)

// Variants are all of them, for tests that hold of each.
var Variants = []Variant{DKMS, OpenXT, XenServer}

// String is the variant's name in tests.
func (v Variant) String() string { return [...]string{"dkms", "openxt", "xenserver"}[v] }

// mask is the flags that the module supports.
func (v Variant) mask() uint64 {
	switch v {
	case DKMS:
		return flagRO | flagPSZ | flagFlush | flagTrim | flagTrimRZ
	case OpenXT:
		return flagRO | flagPSZ | flagFlush | flagTrim
	default:
		return flagRO
	}
}
