package storagetest_test

import (
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
)

func TestConformance(t *testing.T) {
	implementations := []struct {
		name  string
		newFS func(t *testing.T) (storage.FS, string)
	}{
		{"Memory", func(t *testing.T) (storage.FS, string) { return storagetest.NewMemory(), "/dir" }},
		{"Memory with relative names", func(t *testing.T) (storage.FS, string) { return storagetest.NewMemory(), "dir/sub" }},
		{"Crash", func(t *testing.T) (storage.FS, string) { return storagetest.NewCrash(), "/dir" }},
		{"Fault over Memory", func(t *testing.T) (storage.FS, string) {
			return storagetest.NewFault(storagetest.NewMemory()), "/dir"
		}},
		{"Fault over OS", func(t *testing.T) (storage.FS, string) {
			return storagetest.NewFault(storage.OS), t.TempDir()
		}},
		{"a state of Crash", func(t *testing.T) (storage.FS, string) {
			return storagetest.NewCrash().State(0, storagetest.All), "/dir"
		}},
	}
	for _, i := range implementations {
		t.Run(i.name, func(t *testing.T) { storagetest.Run(t, i.newFS) })
	}
}
