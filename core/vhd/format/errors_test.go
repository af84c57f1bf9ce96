package format

import (
	"errors"
	"testing"
)

func TestErrorText(t *testing.T) {
	tests := []struct {
		err  *Error
		want string
	}{
		{&Error{Structure: "footer", Err: ErrCookie}, "footer: wrong cookie"},
		{&Error{Structure: "BAT", Err: ErrBounds, Detail: "5 of 4"}, "BAT: out of bounds: 5 of 4"},
		{&Error{Structure: "dynamic header", Field: "block size", Err: ErrField, Detail: "3000 bytes is no power of two"},
			"dynamic header: block size: invalid value: 3000 bytes is no power of two"},
		{&Error{Structure: "footer", Field: "type", Err: ErrField}, "footer: type: invalid value"},
	}
	for _, tt := range tests {
		if tt.err.Error() != tt.want {
			t.Errorf("%q, want %q", tt.err, tt.want)
		}
		if !errors.Is(tt.err, tt.err.Err) {
			t.Errorf("%q doesn't unwrap to %v", tt.err, tt.err.Err)
		}
	}
}
