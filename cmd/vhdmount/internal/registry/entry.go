package registry

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrAlive is an entry that can't be cleared, since its server lives.
var ErrAlive = errors.New("its server is alive")

// pollInterval is how often Watch.Wait looks at a lock.
const pollInterval = 10 * time.Millisecond

// Entry is what is known of a mount. All paths are absolute.
type Entry struct {
	Image          string    `json:"image"`          // without symbolic links
	Disk           string    `json:"disk,omitempty"` // what the user opens
	Mountpoint     string    `json:"mountpoint,omitempty"`
	MadeMountpoint bool      `json:"made_mountpoint,omitempty"` // by Dir.MakeMountpoint
	Frontend       string    `json:"frontend"`
	Minor          *int      `json:"minor,omitempty"` // of a block device of blktap
	PID            int       `json:"pid,omitempty"`
	Since          time.Time `json:"since,omitzero"`
	ReadOnly       bool      `json:"read_only"`
	Log            string    `json:"log,omitempty"`
}

// Record is an entry that was found.
type Record struct {
	Name  string
	Entry Entry
	Alive bool // its server held the lock when it was looked at
}

// Holding is an entry as its server has it: locked.
type Holding struct {
	dir  *Dir
	name string
	file *os.File // the entry, locked
}

// NewName is a name for a mount of image that no other mount has.
func NewName(image string) string {
	var suffix [4]byte
	rand.Read(suffix[:]) // never fails
	return label(image) + "-" + hex.EncodeToString(suffix[:])
}

// label is image's file name reduced to what is harmless in a file name, and
// short: the path of a socket has 107 bytes at most.
func label(image string) string {
	base := filepath.Base(image)
	base = strings.TrimSuffix(base, filepath.Ext(base))
	base = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '_', r == '-':
			return r
		}
		return '_'
	}, base)
	base = strings.TrimLeft(base, ".-")
	if base == "" {
		return "disk"
	}
	return base[:min(len(base), 32)]
}

// Add enters a mount under a name from NewName and holds the entry until
// Remove or the end of the process. Nobody sees the entry before it is whole
// and locked.
func (d *Dir) Add(name string, e Entry) (*Holding, error) {
	temporary := filepath.Join(d.path, "."+name+".tmp")
	f, err := os.OpenFile(temporary, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	h := &Holding{dir: d, name: name, file: f}
	if err == nil {
		err = h.write(e)
	}
	if err == nil {
		err = os.Rename(temporary, d.entry(name))
	}
	if err != nil {
		return nil, fmt.Errorf("registry: %w", errors.Join(err, os.Remove(temporary), f.Close()))
	}
	return h, nil
}

// Update changes what the entry says. It opens and renames nothing, for a
// server that may not; a reader that meets it half way tries again. An entry that
// says so already needs no write. One that fails may leave the entry torn, until
// the next that doesn't.
func (h *Holding) Update(e Entry) error {
	if err := h.write(e); err != nil {
		return fmt.Errorf("registry: %w", err)
	}
	return nil
}

// write puts an entry in place of what the file has. It has its space first, so
// that a full file system leaves the old entry as it was.
func (h *Holding) write(e Entry) error {
	b, err := json.MarshalIndent(newRecordFile(e), "", "\t")
	if err != nil {
		return err
	}
	b = append(b, '\n')
	has := make([]byte, len(b)+1)
	if n, _ := h.file.ReadAt(has, 0); bytes.Equal(has[:n], b) {
		return nil
	}
	err = unix.Fallocate(int(h.file.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, int64(len(b)))
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	if _, err := h.file.WriteAt(b, 0); err != nil {
		return err
	}
	return h.file.Truncate(int64(len(b)))
}

// Remove takes the entry and the socket away and gives the lock back, in this
// order: whoever waits for the lock finds nothing left.
func (h *Holding) Remove() error {
	return errors.Join(h.dir.removeFiles(h.name), h.file.Close())
}

func (d *Dir) removeFiles(name string) error {
	var errs []error
	for _, path := range []string{d.Socket(name), d.entry(name)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("registry: %w", err))
		}
	}
	return errors.Join(errs...)
}

// Records is all entries, oldest first. One that can't be read is in the
// error; the others are returned all the same.
func (d *Dir) Records() ([]Record, error) {
	names, err := filepath.Glob(filepath.Join(escape(d.path), "[^.]*.json"))
	if err != nil {
		return nil, err
	}
	var out []Record
	var errs []error
	for _, path := range names {
		r, err := d.Record(strings.TrimSuffix(filepath.Base(path), ".json"))
		switch {
		case errors.Is(err, fs.ErrNotExist): // unmounted since
		case err != nil:
			errs = append(errs, err)
		default:
			out = append(out, r)
		}
	}
	sortBySince(out)
	return out, errors.Join(errs...)
}

// Record looks at one entry; one that is gone is fs.ErrNotExist.
func (d *Dir) Record(name string) (Record, error) {
	f, err := os.Open(d.entry(name))
	if err != nil {
		return Record{}, fmt.Errorf("registry: %w", err)
	}
	defer f.Close()
	r := Record{Name: name}
	if r.Entry, err = decode(f); err != nil {
		return Record{}, fmt.Errorf("registry: %s: %w", d.entry(name), err)
	}
	if r.Alive, err = locked(f); err != nil {
		return Record{}, fmt.Errorf("registry: %s: %w", d.entry(name), err)
	}
	return r, nil
}

// decodings is how often an entry is read that makes no sense: an Update may
// have been half way, which takes no time.
const decodings = 5

func decode(f *os.File) (e Entry, err error) {
	for range decodings {
		var r recordFile
		if err = json.NewDecoder(io.NewSectionReader(f, 0, 1<<20)).Decode(&r); err == nil {
			return r.entry(), nil
		}
	}
	return Entry{}, err
}

// locked tells whether a server holds f. It asks for a shared lock, so that
// two who ask at once don't take each other for the server.
func locked(f *os.File) (bool, error) {
	err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, unix.Flock(int(f.Fd()), unix.LOCK_UN)
}

// Clear removes the files of a mount whose server died; its log, which may say
// why, stays. While the server lives the error is ErrAlive. One that is gone is
// no error.
func (d *Dir) Clear(name string) error {
	r, err := d.Record(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && r.Alive {
		return ErrAlive
	}
	return d.removeFiles(name)
}

// Watch is a look at an entry's lock that outlasts the entry's removal.
type Watch struct {
	file *os.File // nil: the entry was gone already
}

// Watch begins to watch the server of the mount called name.
func (d *Dir) Watch(name string) (*Watch, error) {
	f, err := os.Open(d.entry(name))
	if errors.Is(err, fs.ErrNotExist) {
		return &Watch{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	return &Watch{file: f}, nil
}

// Wait returns when the server has let go of the entry: it has exited or is
// about to, with its image closed.
func (w *Watch) Wait(ctx context.Context) error {
	if w.file == nil {
		return nil
	}
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		held, err := locked(w.file)
		if err != nil || !held {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Close ends the watch.
func (w *Watch) Close() error {
	if w.file == nil {
		return nil
	}
	return w.file.Close()
}
