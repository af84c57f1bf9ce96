package harness

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// Random is n bytes that depend on seed alone, none of them a long run of
// zeros.
func Random(seed uint64, n int) []byte {
	data := make([]byte, n)
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	rand.NewChaCha8(key).Read(data) // never fails
	return data
}

// Sum is the SHA-256 of a file's contents.
func (b *Box) Sum(name string) string {
	b.t.Helper()
	f, err := os.Open(b.Path(name))
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		b.t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Tree is what is in the box without the runtime directory: the SHA-256 of
// each regular file, the target of each link, the kind of everything else.
func (b *Box) Tree() map[string]string {
	b.t.Helper()
	tree := map[string]string{}
	err := filepath.WalkDir(b.Dir, func(path string, d fs.DirEntry, err error) error {
		name := strings.TrimPrefix(path, b.Dir)
		switch {
		case err != nil:
			return err
		case strings.HasPrefix(name, "/.run"), strings.HasPrefix(name, "/.race"):
			return nil
		case d.Type().IsRegular():
			tree[name] = b.Sum(path)
		case d.Type()&fs.ModeSymlink != 0:
			tree[name], err = os.Readlink(path)
		default:
			tree[name] = d.Type().String()
		}
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return tree
}

// RunFiles is the names of what is in the runtime directory.
func (b *Box) RunFiles() []string {
	b.t.Helper()
	var out []string
	entries, err := os.ReadDir(b.Runtime)
	if err != nil && !os.IsNotExist(err) {
		b.t.Fatal(err)
	}
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}
