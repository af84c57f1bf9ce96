package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Limits of what fio does not measure.
const (
	bigImage      = 2040 << 30 // bytes: the largest disk of the format
	openingLimit  = 50 * time.Millisecond
	openingRounds = 11
	memoryLimit   = 64 << 20 // bytes, resident
)

// finding is a figure beside its limit.
type finding struct {
	title, figure, limit string
	ok                   bool
}

// check measures what fio can't.
func (b *bench) check(ctx context.Context) ([]finding, error) {
	var findings []finding
	for _, one := range []func(context.Context) (finding, error){b.opening, b.unmounting, b.resident} {
		f, err := one(ctx)
		if err != nil {
			return findings, err
		}
		findings = append(findings, f)
	}
	return findings, nil
}

// writeFindings prints the table of findings and tells whether a limit was
// passed.
func writeFindings(w io.Writer, findings []finding) (missed bool) {
	rows := [][]string{{"vhdmount", "figure", "limit", ""}}
	for _, f := range findings {
		verdict := "ok"
		if !f.ok {
			verdict, missed = "MISSED", true
		}
		rows = append(rows, []string{f.title, f.figure, f.limit, verdict})
	}
	fmt.Fprintln(w)
	writeTable(w, rows)
	return missed
}

// opening is how long `vhdmount info` takes on the largest image: start of
// the process, opening, output.
func (b *bench) opening(ctx context.Context) (finding, error) {
	image := filepath.Join(b.tmp, "big.vhd")
	if err := createVHD(ctx, image, bigImage); err != nil {
		return finding{}, err
	}
	var took []time.Duration
	for range openingRounds {
		begin := time.Now()
		if text, err := exec.CommandContext(ctx, b.vhdmount, "info", image).CombinedOutput(); err != nil {
			return finding{}, fmt.Errorf("info: %w: %s", err, lastLine(string(text)))
		}
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	median := took[len(took)/2]
	return finding{"opening a 2040 GiB dynamic image, process start included", median.Round(100 * time.Microsecond).String(),
		openingLimit.String(), median < openingLimit}, nil
}

// resident is the most memory that a server had under any job.
func (b *bench) resident(context.Context) (finding, error) {
	return finding{"resident memory under load", fmt.Sprintf("%.1f MiB", float64(b.memory)/(1<<20)),
		fmt.Sprintf("%d MiB", memoryLimit>>20), b.memory <= memoryLimit}, nil
}

// unmounting writes a disk's worth through the page cache, unmounts at once,
// and has another program read the image.
func (b *bench) unmounting(ctx context.Context) (f finding, err error) {
	image := filepath.Join(b.tmp, "unmount.vhd")
	if err := makeFresh(ctx, image, b.size, false); err != nil {
		return f, err
	}
	s, err := serveVhdmount(ctx, b, image)
	if err != nil {
		return f, err
	}
	written, err := writePattern(ctx, s.file, b.size)
	if err == nil {
		var peak int64
		peak, err = peakMemory(s.pid)
		b.memory = max(b.memory, peak)
	}
	begin := time.Now()
	if err := errors.Join(err, s.stop()); err != nil {
		return f, err
	}
	took := time.Since(begin).Round(time.Millisecond)
	read, err := hashImage(ctx, image, filepath.Join(b.tmp, "unmount.raw"))
	f = finding{"unmount right after 1 GiB of buffered writes", "all there, " + took.String(), "loses nothing", written == read}
	if !f.ok {
		f.figure = "qemu-img reads other bytes than were written"
	}
	return f, err
}

// writePattern fills file with random bytes and returns their hash.
func writePattern(ctx context.Context, file string, size int64) (sum [sha256.Size]byte, err error) {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	random := rand.NewChaCha8(sha256.Sum256([]byte(file)))
	h := sha256.New()
	buf := make([]byte, 1<<20)
	for off := int64(0); off < size; off += int64(len(buf)) {
		if err := ctx.Err(); err != nil {
			return sum, err
		}
		_, _ = random.Read(buf) // never fails
		h.Write(buf)
		if _, err := f.WriteAt(buf, off); err != nil {
			return sum, err
		}
	}
	return sumOf(h), nil
}

// hashImage is the hash of the disk in image, as qemu-img reads it into raw.
func hashImage(ctx context.Context, image, raw string) (sum [sha256.Size]byte, err error) {
	if err := qemuImg(ctx, "convert", "-f", "vpc", "-O", "raw", image, raw); err != nil {
		return sum, err
	}
	f, err := os.Open(raw)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return sumOf(h), err
}

func sumOf(h hash.Hash) (sum [sha256.Size]byte) {
	h.Sum(sum[:0])
	return sum
}

// peakMemory is the most resident memory that process pid had, in bytes.
func peakMemory(pid int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	return parsePeak(string(status))
}

// parsePeak reads VmHWM, which the kernel gives in kB and means KiB.
func parsePeak(status string) (int64, error) {
	for line := range strings.Lines(status) {
		value, ok := strings.CutPrefix(line, "VmHWM:")
		if !ok {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
		return kib << 10, err
	}
	return 0, errors.New("no VmHWM in the process's status")
}
