module github.com/runnel-fota/runnel/firmware

go 1.23

require github.com/runnel-fota/runnel/core v0.0.0

replace github.com/runnel-fota/runnel/core => ../core
