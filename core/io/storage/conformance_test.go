package storage_test

import (
	"testing"

	"github.com/vhdmount/vhdmount/core/io/storage"
	"github.com/vhdmount/vhdmount/core/io/storage/storagetest"
)

func TestConformance(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) (storage.FS, string) { return storage.OS, t.TempDir() })
}

func TestDirectConformance(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) (storage.FS, string) { return storage.Direct(storage.OS), onDisk(t) })
}
