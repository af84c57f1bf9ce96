package storage_test

import (
	"errors"
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage"
)

func TestInUseErrorSaysWho(t *testing.T) {
	qemu, tapdisk := storage.Holder{PID: 42, Name: "qemu-io"}, storage.Holder{PID: 43, Name: "tapdisk"}
	tests := []struct {
		err  storage.InUseError
		want string
	}{
		{storage.InUseError{Access: storage.Shared, Holders: []storage.Holder{qemu}}, "in use: qemu-io (pid 42) has it open for writing"},
		{storage.InUseError{Access: storage.Exclusive, Holders: []storage.Holder{qemu, tapdisk}}, "in use: qemu-io (pid 42), tapdisk (pid 43) has it open"},
		{storage.InUseError{Access: storage.Exclusive}, "in use: another program has it open"},
	}
	for _, test := range tests {
		if got := test.err.Error(); got != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
		if !errors.Is(&test.err, storage.ErrInUse) {
			t.Errorf("%v is not ErrInUse", &test.err)
		}
	}
}
