package bucket

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// Options of Open.
type Options struct {
	// URL is s3://BUCKET[/PREFIX][?endpoint=URL&region=NAME&path_style=BOOL]. Programs built with
	// the tag gocloud also take gs://BUCKET[/PREFIX] and azblob://CONTAINER[/PREFIX]. Credentials
	// are never in it: they are where the provider's own tools find them.
	URL string
	// Patience is how long the storage may be silent; 0: DefaultPatience.
	Patience time.Duration
}

// place is a URL, read.
type place struct {
	scheme, bucket, prefix string
	query                  url.Values
}

// drivers open a place, by scheme.
var drivers = map[string]func(ctx context.Context, p place) (objects, error){"s3": openS3}

const urlHint = "write it like s3://my-bucket/fleet, and for storage that is not Amazon's s3://my-bucket/fleet?endpoint=https://storage.example.com"

// Check says what is wrong with a URL for Options, without asking anybody.
func Check(text string) error {
	_, err := parse(text)
	return err
}

func parse(text string) (place, error) {
	wrong := func(format string, args ...any) (place, error) {
		return place{}, &fleet.Error{Code: fleet.CodeInvalid, Message: fmt.Sprintf(format, args...), Hint: urlHint}
	}
	u, err := url.Parse(text)
	if err != nil {
		return wrong("this is no URL") // what url.Parse says repeats it, and with it what may be a secret
	}
	if u.User != nil || strings.Contains(u.Opaque, "@") {
		return place{}, &fleet.Error{Code: fleet.CodeInvalid, Message: "credentials do not belong into the URL of a bucket: others can read it",
			Hint: "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile with AWS_PROFILE"}
	}
	query, err := url.ParseQuery(u.RawQuery)
	p := place{scheme: u.Scheme, bucket: u.Host, prefix: strings.Trim(u.Path, "/"), query: query}
	switch {
	case err != nil:
		return wrong("what stands behind the ? can't be read")
	case drivers[p.scheme] == nil && (p.scheme == "gs" || p.scheme == "azblob"):
		return place{}, &fleet.Error{Code: fleet.CodeInvalid, Message: "this program was built without " + p.scheme + "://",
			Hint: "build it with 'go build -tags gocloud ./cmd/runnel'; that was not tried on the real service"}
	case drivers[p.scheme] == nil:
		return wrong("%q is no scheme of a bucket", u.Scheme)
	case p.bucket == "" || u.Fragment != "":
		return wrong("the URL names no bucket")
	}
	for _, part := range strings.Split(p.prefix, "/") {
		if p.prefix != "" && (part == "" || part == "." || part == "..") {
			return wrong("the prefix %q has a part that is empty, . or ..", p.prefix)
		}
	}
	if p.prefix != "" {
		p.prefix += "/"
	}
	known := parameters[p.scheme]
	for name, values := range p.query {
		if !slices.Contains(known, name) || len(values) != 1 {
			return wrong("%q is no parameter of %s://, or stands there twice; it has: %s", name, p.scheme, strings.Join(known, ", "))
		}
	}
	if p.scheme == "s3" {
		if _, err := s3Options(p); err != nil {
			return place{}, err
		}
	}
	return p, nil
}

// parameters of URLs, by scheme.
var parameters = map[string][]string{"s3": {"endpoint", "region", "path_style"}}

// Open opens a bucket and asks nobody yet.
func Open(ctx context.Context, o Options) (*Bucket, error) {
	p, err := parse(o.URL)
	if err != nil {
		return nil, err
	}
	b := &Bucket{name: strings.TrimSuffix(p.scheme+"://"+p.bucket+"/"+p.prefix, "/"), prefix: p.prefix, patience: o.Patience}
	if b.patience <= 0 {
		b.patience = DefaultPatience
	}
	b.objects, err = drivers[p.scheme](ctx, p)
	return b, err
}
