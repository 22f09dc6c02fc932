package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/pflag"

	"github.com/runnel-fota/runnel/internal/derive"
	"github.com/runnel-fota/runnel/internal/term"
	"github.com/runnel-fota/runnel/release"
)

// What `runnel sign` puts beside the image: patches from images that devices may run, and
// the image compressed, each under a sheet that the same key signs.

// deriving is how they are asked for.
type deriving struct {
	from         []string
	profiles     []string
	minSaving    float64 // percent
	noCompressed bool
	snapshots    bool
}

// signDeriveFlags are their names, for what they don't go with.
var signDeriveFlags = []string{"patch-from", "patch-profile", "patch-min-saving", "patch-snapshots", "no-compressed"}

func (d *deriving) flags(f *pflag.FlagSet) {
	f.StringArrayVar(&d.from, "patch-from", nil, "release `file` or image that devices may run: put a patch from it into the file; may be repeated")
	f.StringSliceVar(&d.profiles, "patch-profile", []string{"large"}, "RAM of the devices, `large` (16 KiB for a patch) or small (8 KiB), or both")
	f.Float64Var(&d.minSaving, "patch-min-saving", 100*derive.DefaultMinSaving, "`percent` of the raw stream that a patch or the compressed image saves, or it is dropped")
	f.BoolVar(&d.snapshots, "patch-snapshots", false, "for devices with scratch sectors: points to go on at after a power cut cost less. Others begin such a stream anew")
	f.BoolVar(&d.noCompressed, "no-compressed", false, "leave the compressed image out")
}

func (d *deriving) check() error {
	if !(d.minSaving >= 0 && d.minSaving < 100) {
		return usagef("--patch-min-saving %g: it is 0 or more, and below 100", d.minSaving)
	}
	if len(d.profiles) == 0 {
		return usagef("--patch-profile: it is large, small, or both")
	}
	for i, name := range d.profiles {
		if derive.Profile(name) == 0 || slices.Contains(d.profiles[:i], name) {
			return usagef("--patch-profile %s: it is large, small, or both", name)
		}
	}
	if n := d.most(); n > release.MaxSheets {
		return usagef("%d patches and compressed images at most fit into a release file, not %d", release.MaxSheets, n).withHint("give fewer --patch-from; the server makes patches by itself from what the fleet runs")
	}
	return nil
}

// most is how many streams there may be.
func (d *deriving) most() int {
	n := len(d.from)
	if !d.noCompressed {
		n++
	}
	return n * len(d.profiles)
}

// base is an image to make a patch from.
type base struct {
	name  string // for people
	image []byte
}

// bases reads them, and refuses what can be none before anything is signed.
func (s *signing) bases(m *release.Manifest) ([]base, error) {
	var list []base
	seen := map[release.Hash]string{}
	for _, path := range s.deriving.from {
		b, err := s.base(path, m)
		if err != nil {
			return nil, err
		}
		d := release.Hash(sha256.Sum256(b.image))
		switch was := seen[d]; {
		case d == m.Image.Digest:
			return nil, usagef("--patch-from %s holds the image that is signed", path)
		case was != "":
			return nil, usagef("--patch-from %s holds the same image as %s", path, was)
		}
		seen[d] = path
		list = append(list, b)
	}
	if !s.deriving.noCompressed {
		list = append(list, base{})
	}
	return list, nil
}

func (s *signing) base(path string, m *release.Manifest) (base, error) {
	if !isReleaseFile(path) {
		p, err := readBounded(path, maxImage)
		if err == nil && len(p) == 0 {
			err = fmt.Errorf("%s is empty", path)
		}
		return base{path, p}, err
	}
	f, err := os.Open(path)
	if err != nil {
		return base{}, err
	}
	defer f.Close()
	var spool memorySpool
	c, err := release.Verify(s.cmd.Context(), f, nil, release.Options{Unsigned: true, Spool: &spool})
	if err != nil {
		return base{}, hinted(fmt.Errorf("%s: %w", path, err), "it was cut or altered: copy it again")
	}
	if c.Manifest.Product != m.Product {
		return base{}, usagef("--patch-from %s is of %s, not of %s", path, c.Manifest.Product, m.Product)
	}
	return base{path, spool.p}, nil
}

// memorySpool is release.Spool in memory: a release file's image is bounded.
type memorySpool struct{ p []byte }

func (s *memorySpool) Write(p []byte) (int, error) {
	s.p = append(s.p, p...)
	return len(p), nil
}

func (s *memorySpool) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(s.p).ReadAt(p, off)
}

// derive makes what was asked for, and says what became of each.
func (s *signing) derive(m *release.Manifest, image []byte, bases []base) ([]release.DerivedFile, error) {
	var out []release.DerivedFile
	for _, b := range bases {
		for _, profile := range s.deriving.profiles {
			what := "compressed"
			if b.image != nil {
				what = "patch from " + b.name
			}
			if len(s.deriving.profiles) > 1 {
				what += ", " + profile
			}
			made, err := s.deriveOne(m, image, b, profile, what)
			var little *derive.SavingError
			if errors.As(err, &little) {
				fmt.Fprintf(s.cmd.OutOrStdout(), "%-17s %s: %v\n", "dropped", what, err)
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", what, err)
			}
			fmt.Fprintf(s.cmd.OutOrStdout(), "%-17s %s: %s of %s bytes, %.1f %%\n", "derived stream", what, term.Number(made.Sent()), term.Number(made.Raw), percent(float64(made.Sent()), int(made.Raw)))
			out = append(out, release.DerivedFile{Sheet: made.Envelope, Stream: bytes.NewReader(made.File), Size: int64(len(made.File))})
		}
	}
	return out, nil
}

func (s *signing) deriveOne(m *release.Manifest, image []byte, b base, profile, what string) (*derive.Made, error) {
	bar := newProgress(s.cmd.ErrOrStderr(), what)
	defer bar.End()
	return derive.Make(s.cmd.Context(), b.image, image, m, derive.Options{Profile: derive.Profile(profile), MinSaving: s.deriving.minSaving / 100, Snapshots: s.deriving.snapshots,
		Signer: s.by, Progress: func(done float64, variant string) { bar.Say(done, variant) }})
}
