package format_test

import (
	"errors"
	"fmt"
	"time"

	"github.com/vhdmount/vhdmount/core/vhd/format"
)

// A dynamic image begins with a copy of the footer and the dynamic header.
func Example() {
	const size = 10 << 30
	front := make([]byte, format.FooterSize+format.HeaderSize)
	format.NewFooter(size, format.Dynamic, time.Now()).Encode(front)
	format.NewHeader(size, 0).Encode(front[format.FooterSize:])

	f, err := format.DecodeFooter(front[:format.FooterSize])
	if err == nil {
		err = f.Validate()
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	h, err := format.DecodeHeader(front[f.DataOffset:])
	if err == nil {
		err = h.Validate()
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%v disk of %d bytes, %d blocks of %d\n", f.Type, f.Size(format.SizeAuto), h.MaxTableEntries, h.BlockSize)
	// Output: dynamic disk of 10737418240 bytes, 5120 blocks of 2097152
}

// What is damaged comes with the error, to be shown.
func ExampleDecodeFooter() {
	b := make([]byte, format.FooterSize)
	format.NewFooter(1<<30, format.Fixed, time.Now()).Encode(b)
	b[511] ^= 1

	f, err := format.DecodeFooter(b)
	fmt.Println(errors.Is(err, format.ErrChecksum), f.Type, f.CurrentSize)
	// Output: true fixed 1073741824
}

// A child names its parent in three ways, for whoever opens it.
func ExampleEncodeLocatorPath() {
	for _, code := range []format.LocatorCode{format.CodeMacX, format.CodeW2ku, format.CodeW2ru} {
		data, err := format.EncodeLocatorPath(code, "base/parent.vhd")
		if err != nil {
			fmt.Println(err)
			return
		}
		p, err := format.DecodeLocatorPath(code, data)
		fmt.Println(code, len(data), p.Path, err)
	}
	// Output:
	// MacX 24 ./base/parent.vhd <nil>
	// W2ku 34 ./base/parent.vhd <nil>
	// W2ru 34 ./base/parent.vhd <nil>
}

// A read walks a block's bitmap by runs.
func ExampleBitmap_Run() {
	b := make(format.Bitmap, 512)
	b.Set(8, 100)
	for at := 0; at < 4096; {
		n, set := b.Run(at, 4096)
		fmt.Println(at, n, set)
		at += n
	}
	// Output:
	// 0 8 false
	// 8 100 true
	// 108 3988 false
}
