package storage

import (
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Passed returns base with some files open already, as another process opened
// and passed them: for a process that may open none itself. Open and whatever
// opens beneath a directory take the passed file that the name leads to, and
// turn to base where there is none. The files stay the caller's: what is opened
// is a duplicate, which shares a lock with its original.
func Passed(base FS, files []*os.File) FS { return &passed{FS: base, files: files} }

type passed struct {
	FS
	files []*os.File
}

// Open implements FS. A passed file that was opened for reading alone is
// fs.ErrPermission to whoever wants to write.
func (p *passed) Open(name string, flag Flag) (File, error) {
	f, err := p.find(name, flag)
	if f == nil && err == nil {
		return p.FS.Open(name, flag)
	}
	return f, err
}

// find is the passed file that the name leads to; nil where there is none.
func (p *passed) find(name string, flag Flag) (File, error) {
	info, err := p.FS.Stat(name)
	if err != nil {
		return nil, err
	}
	for _, f := range p.files {
		var st unix.Stat_t
		if err := retry(func() error { return unix.Fstat(int(f.Fd()), &st) }); err != nil {
			return nil, pathError("open", name, err)
		}
		if (FileID{Dev: st.Dev, Ino: st.Ino}) == info.ID {
			return duplicate(f, name, flag)
		}
	}
	return nil, nil
}

// OpenBeneath implements FS.
func (p *passed) OpenBeneath(dir, name string, flag Flag) (File, error) {
	if filepath.IsLocal(name) {
		if f, err := p.find(filepath.Join(dir, name), flag|NoFollow); f != nil || err != nil {
			return f, err
		}
	}
	return p.FS.OpenBeneath(dir, name, flag)
}

// duplicate is f as a File of its own that is called name.
func duplicate(f *os.File, name string, flag Flag) (File, error) {
	mode, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	if flag&ReadWrite != 0 && mode&unix.O_ACCMODE != unix.O_RDWR {
		return nil, &fs.PathError{Op: "open", Path: name, Err: unix.EACCES}
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	if err := checkOpened(fd, flag); err != nil {
		_ = unix.Close(fd)
		return nil, pathError("open", name, err)
	}
	return &osFile{name: name, fd: fd, writable: flag&ReadWrite != 0}, nil
}
