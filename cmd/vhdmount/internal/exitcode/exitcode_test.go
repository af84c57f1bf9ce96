package exitcode

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"
)

func TestOfFollowsTheTable(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want int
	}{
		"nothing":         {nil, 0},
		"any error":       {errors.New("boom"), 1},
		"usage":           {Usagef("unknown flag %s", "--x"), 2},
		"damage":          {Damagef("disk.vhd: damage found"), 3},
		"wrapped usage":   {fmt.Errorf("mount: %w", Usagef("two images")), 2},
		"explicit failed": {&Error{Code: Failed, Err: fs.ErrNotExist}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Of(c.err); got != c.want {
				t.Errorf("Of(%v) = %d, want %d", c.err, got, c.want)
			}
		})
	}
}

func TestErrorKeepsTheCauseAndItsMessage(t *testing.T) {
	err := Usagef("size: %w", fs.ErrInvalid)
	if !errors.Is(err, fs.ErrInvalid) {
		t.Error("the cause is lost")
	}
	if got, want := err.Error(), "size: invalid argument"; got != want {
		t.Errorf("message %q, want %q", got, want)
	}
}
