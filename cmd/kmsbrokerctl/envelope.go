package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/kmsbroker/kmsbroker/client"
)

// seal makes an envelope of the input.
func (c *ctl) seal(ctx context.Context, f *cryptoFlags, encryptionContext map[string]string) error {
	if f.toStdout() && isTerminal(c.stdout) {
		return usagef("an envelope is binary and does not go to a terminal: use --out")
	}
	return c.throughFile(f, func(app *client.Client, dst io.Writer, src io.Reader, size int64) error {
		return app.SealWith(ctx, dst, src, client.ToSeal{Key: f.key, EncryptionContext: encryptionContext, Regions: f.regions, Size: size})
	})
}

// open opens an envelope. To standard output goes what is verified, piece by piece:
// whoever reads it must look at the exit status too.
func (c *ctl) open(ctx context.Context, f *cryptoFlags, region string, encryptionContext map[string]string) error {
	return c.throughFile(f, func(app *client.Client, dst io.Writer, src io.Reader, _ int64) error {
		return app.In(region).OpenWith(ctx, dst, src, client.ToOpen{Key: f.key, EncryptionContext: encryptionContext})
	})
}

// throughFile makes the output of the input, with a bar for who waits. The file
// takes its name when all of it was made, and nothing is left when it was not.
func (c *ctl) throughFile(f *cryptoFlags, do func(app *client.Client, dst io.Writer, src io.Reader, size int64) error) error {
	if c.output == "json" {
		return usagef("-o json cannot show an envelope or what is in it")
	}
	src, size, err := c.openInput(f.in)
	if err != nil {
		return err
	}
	defer src.Close()
	return c.application(func(app *client.Client) error {
		out, err := c.create(f.out)
		if err != nil {
			return err
		}
		bar := newBar(c.stderr, size)
		err = out.stream(size, func(dst io.Writer) error { return do(app, dst, bar.reader(src), size) })
		bar.end()
		return err
	})
}

// openInput opens a file or standard input; the size is 0 if it is not known.
func (c *ctl) openInput(path string) (io.ReadCloser, int64, error) {
	if path == "" || path == standardStream {
		if f, ok := c.stdin.(*os.File); ok {
			return io.NopCloser(f), sizeOf(f), nil
		}
		return io.NopCloser(c.stdin), 0, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, usageError{err}
	}
	return f, sizeOf(f), nil
}

func sizeOf(f *os.File) int64 {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return 0
	}
	return info.Size()
}

// inBytes writes a number of bytes for people.
func inBytes(n int64) string {
	const unit = 1024
	value, i := float64(n), 0
	for ; value >= unit && i < len("KMGTPE"); i++ {
		value /= unit
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGTPE"[i-1])
}
