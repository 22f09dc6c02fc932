package devicehttp

import (
	"time"
)

// Head is the answer's status and its Retry-After.
func (r *Response) Head() (status int, retryAfter time.Duration) { return r.Status, r.RetryAfter }
