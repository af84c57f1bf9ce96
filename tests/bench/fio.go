package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"time"
)

// fioOutput is the part of fio's JSON that figures are made of.
type fioOutput struct {
	Jobs []struct {
		Name  string   `json:"jobname"`
		Error int      `json:"error"` // errno of the first operation that failed
		Read  fioTotal `json:"read"`
		Write fioTotal `json:"write"`
	} `json:"jobs"`
}

type fioTotal struct {
	Bytes     float64 `json:"io_bytes"`
	Bandwidth float64 `json:"bw_bytes"` // bytes a second
	IOPS      float64 `json:"iops"`
}

// figure reads what j measured out of fio's output: the sum over its
// processes.
func (j job) figure(output []byte) (float64, error) {
	// Warnings may stand before the JSON.
	if i := bytes.IndexByte(output, '{'); i > 0 {
		output = output[i:]
	}
	var o fioOutput
	if err := json.NewDecoder(bytes.NewReader(output)).Decode(&o); err != nil {
		return 0, fmt.Errorf("fio: output is no JSON: %w", err)
	}
	if len(o.Jobs) == 0 {
		return 0, errors.New("fio: no job in the output")
	}
	var sum float64
	for _, p := range o.Jobs {
		if p.Error != 0 {
			return 0, fmt.Errorf("fio: %s: %w", p.Name, syscall.Errno(p.Error))
		}
		total := p.Read
		if j.writes {
			total = p.Write
		}
		if total.Bytes == 0 {
			return 0, fmt.Errorf("fio: %s: nothing was transferred", p.Name)
		}
		if j.unit == operationsPerSecond {
			sum += total.IOPS
		} else {
			sum += total.Bandwidth
		}
	}
	return sum, nil
}

// fio runs j on file and returns its figure.
func (b *bench) fio(ctx context.Context, j job, file string) (float64, error) {
	cmd := exec.CommandContext(ctx, "fio", j.command(file, b.size, b.runtime)...)
	cmd.Dir = b.tmp // fio leaves state files behind when it is interrupted
	// Its processes are a group of their own, so that an interrupt takes all.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	if err != nil {
		return 0, fmt.Errorf("fio: %w: %s", err, lastLine(stderr.String()))
	}
	return j.figure(stdout.Bytes())
}
