# The commands of the project. Each does its own set-up.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: demo demo-openstack test test-all test-fields test-os test-openstack steps soak fuzz check bench bench-check setup build image devcloud devcloud-down

export RAST_TOOLS ?= $(CURDIR)/.tools
export PATH := $(RAST_TOOLS)/bin:$(PATH)

## demo: build rast, start it on this host, run the application in examples/
demo: setup build
	scripts/demo

## demo-openstack: a real OpenStack on this machine, a cluster of our own image in it, an app that answers
demo-openstack: setup build
	scripts/demo-openstack

## build: the release program, at target/release/rast
build: setup
	cargo build --release --locked -p rast

## image: the machine image, in image/ (as an ordinary user, when the packages of setup are there)
image:
	scripts/image

## test: what CI runs, with real containers, a real registry and real clients
test: setup
	scripts/test

## test-all: test, and the long forms
test-all: test test-fields test-os test-openstack steps soak fuzz

## steps: kill rast and its helper at 100 steps each of starting and stopping pods
steps: setup
	scripts/steps

## soak: five minutes of pods that come and go, with kills (scripts/soak 3600: an hour)
soak: setup
	scripts/soak

## fuzz: each parser of what comes from outside, 20 seconds each (scripts/fuzz 3600 store/log: one, for an hour)
fuzz: setup
	scripts/fuzz

## test-fields: drop each served field on its way and require its test to fail
test-fields: setup
	scripts/test-fields

## test-os: build the machine image, boot it under emulation, break it
test-os: setup
	scripts/test-os

## test-openstack: make, break and remove clusters in a real OpenStack; as root
test-openstack: setup
	scripts/test-openstack

## check: formatting, lints, licences, documentation, tidiness
check: setup
	scripts/check

## bench: every promised figure beside its peers, from one run
bench: setup build
	scripts/bench

## bench-check: like bench, and fails when a figure misses its target
bench-check: setup build
	scripts/bench --check

## setup: packages and clients that the other commands need (idempotent)
setup:
	scripts/setup

## devcloud: a real OpenStack on this machine, which the tests use; as root (docs/devcloud.md)
devcloud:
	scripts/devcloud/devcloud up

## devcloud-down: ends it; its state stays for the next time
devcloud-down:
	scripts/devcloud/devcloud down
