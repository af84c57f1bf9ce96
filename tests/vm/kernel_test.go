package vm

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
)

// kernel is the inside of a kernel package.
type kernel struct {
	image   string            // vmlinuz
	modules map[string]string // files by their names, with "_" for "-"
}

// openKernel looks into the directory of an unpacked package.
func openKernel(dir string) (kernel, error) {
	images, err := filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-*"))
	if err == nil && len(images) != 1 {
		err = fmt.Errorf("%s/boot has %d kernels, want one (scripts/guest-kernel)", dir, len(images))
	}
	if err != nil {
		return kernel{}, err
	}
	k := kernel{image: images[0], modules: map[string]string{}}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if name, is := strings.CutSuffix(filepath.Base(path), ".ko"); err == nil && is {
			k.modules[moduleName(name)] = path
		}
		return err
	})
	return k, err
}

func moduleName(s string) string { return strings.ReplaceAll(s, "-", "_") }

// loadOrder is the files of the named modules and of all that they depend on,
// each after what it needs.
func (k kernel) loadOrder(names ...string) ([]string, error) {
	var order []string
	seen := map[string]bool{}
	var visit func(name string) error
	visit = func(name string) error {
		name = moduleName(name)
		if seen[name] {
			return nil
		}
		seen[name] = true
		file, ok := k.modules[name]
		if !ok {
			return fmt.Errorf("the kernel of %s has no module %s", k.image, name)
		}
		depends, err := dependencies(file)
		if err != nil {
			return err
		}
		for _, d := range depends {
			if err := visit(d); err != nil {
				return err
			}
		}
		order = append(order, file)
		return nil
	}
	for _, name := range names {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// dependencies is what a module's file says that it needs loaded before.
func dependencies(file string) ([]string, error) {
	f, err := elf.Open(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	defer f.Close()
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("%s: %w", file, errors.New("no kernel module"))
	}
	info, err := section.Data()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	for pair := range bytes.SplitSeq(info, []byte{0}) {
		if list, is := strings.CutPrefix(string(pair), "depends="); is && list != "" {
			return strings.Split(list, ","), nil
		}
	}
	return nil, nil
}
