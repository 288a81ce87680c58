"""Each of the 92 languages is detected, also where several share an extension."""

from __future__ import annotations

import pytest

from data_builders.parsing.languages import LANGUAGES, detect

# Language to (file name, text) of a typical file.
TABLE = {
    "ada": ("stack.adb", "procedure Stack is\nbegin\n   null;\nend Stack;\n"),
    "agda": ("Nat.agda", "module Nat where\ndata ℕ : Set where\n  zero : ℕ\n"),
    "alloy": ("files.als", "sig File {}\npred show { some File }\nrun show for 3\n"),
    "antlr": ("Expr.g4", "grammar Expr;\nexpr : expr '+' expr | INT ;\nINT : [0-9]+ ;\n"),
    "applescript": ("mail.applescript", 'tell application "Mail" to activate\n'),
    "assembly": ("start.s", "\t.globl _start\n_start:\n\tmov $1, %rax\n\tsyscall\n"),
    "augeas": ("hosts.aug", "module Hosts =\n  autoload xfm\n"),
    "awk": ("sum.awk", "{ total += $1 }\nEND { print total }\n"),
    "batchfile": ("build.bat", "@echo off\nset X=1\ncall make.cmd %X%\n"),
    "bluespec": ("Counter.bsv", "module mkCounter(Counter);\n  Reg#(int) n <- mkReg(0);\nendmodule\n"),
    "c": ("list.c", "#include <stdio.h>\nint main(void) { return 0; }\n"),
    "c#": ("Order.cs", "namespace Shop { public class Order { } }\n"),
    "c++": ("order.cpp", "#include <vector>\nstd::vector<int> orders;\n"),
    "clojure": ("core.clj", "(ns shop.core)\n(defn total [xs] (reduce + xs))\n"),
    "cmake": ("CMakeLists.txt", "cmake_minimum_required(VERSION 3.20)\nproject(shop)\n"),
    "coffeescript": ("app.coffee", "square = (x) -> x * x\n"),
    "common-lisp": ("shop.lisp", "(defpackage :shop (:use :cl))\n(defun total (xs) (reduce #'+ xs))\n"),
    "css": ("site.css", "body { margin: 0; }\n"),
    "cuda": ("add.cu", "__global__ void add(int *a) { a[threadIdx.x] += 1; }\n"),
    "dart": ("main.dart", "void main() { print('hi'); }\n"),
    "dockerfile": ("Dockerfile", "FROM python:3.11\nRUN pip install x\n"),
    "elixir": ("shop.ex", "defmodule Shop do\n  def total(xs), do: Enum.sum(xs)\nend\n"),
    "elm": ("Main.elm", "module Main exposing (main)\n"),
    "emacs-lisp": ("shop.el", "(defun shop-total (xs) (apply #'+ xs))\n(provide 'shop)\n"),
    "erlang": ("shop.erl", "-module(shop).\n-export([total/1]).\n"),
    "f#": ("Shop.fs", "module Shop\nlet total xs = List.sum xs\n"),
    "fortran": ("solve.f90", "program solve\n  implicit none\nend program solve\n"),
    "glsl": ("light.frag", "#version 330\nout vec4 color;\nvoid main() { color = vec4(1); }\n"),
    "go": ("main.go", "package main\n\nfunc main() {}\n"),
    "groovy": ("build.gradle", "plugins { id 'java' }\n"),
    "haskell": ("Shop.hs", "module Shop where\ntotal :: [Int] -> Int\ntotal = sum\n"),
    "html": ("index.html", "<!doctype html><title>Shop</title><p>Hello</p>\n"),
    "idris": ("Main.idr", 'module Main\nmain : IO ()\nmain = putStrLn "hi"\n'),
    "isabelle": ("Shop.thy", "theory Shop imports Main begin\nend\n"),
    "java": ("Order.java", "package shop;\npublic class Order {}\n"),
    "java-server-pages": ("order.jsp", '<%@ page language="java" %>\n<p><%= total %></p>\n'),
    "javascript": ("app.js", "module.exports = (a, b) => a + b;\n"),
    "json": ("config.json", '{"a": 1}\n'),
    "julia": ("shop.jl", "total(xs) = sum(xs)\n"),
    "jupyter-notebook": ("analysis.ipynb", '{"cells": [], "nbformat": 4}\n'),
    "kotlin": ("Order.kt", "data class Order(val total: Int)\n"),
    "lean": ("Nat.lean", "theorem add_zero (n : Nat) : n + 0 = n := rfl\n"),
    "literate-agda": ("Nat.lagda.md", "```agda\nmodule Nat where\n```\n"),
    "literate-coffeescript": ("app.litcoffee", "We square.\n\n    square = (x) -> x * x\n"),
    "literate-haskell": ("Shop.lhs", "> total = sum\n"),
    "lua": ("shop.lua", "local function total(xs) return #xs end\n"),
    "makefile": ("Makefile", "all:\n\tcc main.c\n"),
    "maple": ("curve.mpl", "f := proc(x) x^2 end proc;\n"),
    "markdown": ("README.md", "# Shop\n\nIt sells.\n"),
    "mathematica": ("curve.wl", "f[x_] := x^2\n"),
    "matlab": ("curve.m", "function y = curve(x)\n  y = x.^2;\nend\n"),
    "objectc++": ("View.mm", "#import <UIKit/UIKit.h>\n@implementation View\n@end\n"),
    "ocaml": ("shop.ml", "let total = List.fold_left ( + ) 0\n"),
    "pascal": ("shop.pas", "program Shop;\nbegin\n  WriteLn('hi');\nend.\n"),
    "perl": ("shop.pl", "use strict;\nmy $total = 0;\nprint $total;\n"),
    "php": ("index.php", "<?php echo 1;\n"),
    "powershell": ("deploy.ps1", "param([string]$Name)\nWrite-Host $Name\n"),
    "prolog": ("family.pl", "parent(ann, bob).\ngrandparent(X, Z) :- parent(X, Y), parent(Y, Z).\n"),
    "protocol-buffer": ("order.proto", 'syntax = "proto3";\nmessage Order { int32 id = 1; }\n'),
    "python": ("shop.py", "def total(xs):\n    return sum(xs)\n"),
    "r": ("shop.R", "total <- function(xs) sum(xs)\n"),
    "racket": ("shop.rkt", "#lang racket\n(define (total xs) (apply + xs))\n"),
    "restructuredtext": ("index.rst", "Shop\n====\n\n.. toctree::\n"),
    "rmarkdown": ("report.Rmd", "---\ntitle: Report\n---\n```{r}\nsummary(x)\n```\n"),
    "ruby": ("shop.rb", "def total(xs) = xs.sum\n"),
    "rust": ("main.rs", 'fn main() { println!("hi"); }\n'),
    "sas": ("report.sas", "data orders; set raw; run;\n"),
    "scala": ("Shop.scala", "object Shop { def total(xs: Seq[Int]) = xs.sum }\n"),
    "scheme": ("shop.scm", "(define (total xs) (apply + xs))\n"),
    "shell": ("run.sh", "#!/bin/sh\nset -e\necho hi\n"),
    "smalltalk": ("Order.st", "Object subclass: #Order\n  instanceVariableNames: 'total'\n"),
    "solidity": ("Token.sol", "pragma solidity ^0.8.0;\ncontract Token {}\n"),
    "sparql": ("people.rq", "SELECT ?name WHERE { ?p foaf:name ?name }\n"),
    "sql": ("orders.sql", "SELECT total FROM orders;\n"),
    "stan": ("model.stan", "data { int N; }\nmodel { }\n"),
    "standard-ml": ("shop.sml", "structure Shop = struct fun total xs = foldl op+ 0 xs end\n"),
    "stata": ("panel.do", "use orders.dta, clear\nregress total price\n"),
    "swift": ("Order.swift", "struct Order { let total: Int }\n"),
    "systemverilog": ("alu.sv", "module alu(input logic clk);\nendmodule\n"),
    "tcl": ("shop.tcl", "proc total {xs} { return [expr {[join $xs +]}] }\n"),
    "tcsh": ("run.csh", "#!/bin/csh\nsetenv X 1\n"),
    "tex": ("paper.tex", "\\documentclass{article}\n\\begin{document}Hi\\end{document}\n"),
    "thrift": ("order.thrift", "struct Order { 1: i32 id }\n"),
    "typescript": ("app.ts", "export const add = (a: number, b: number): number => a + b;\n"),
    "verilog": ("alu.v", "module alu(input clk);\nendmodule\n"),
    "vhdl": ("alu.vhd", "entity alu is\nend alu;\n"),
    "visual-basic": ("Order.vb", "Public Class Order\nEnd Class\n"),
    "vue": ("App.vue", "<template><p>Hi</p></template>\n"),
    "xslt": ("page.xsl", '<xsl:stylesheet version="1.0"></xsl:stylesheet>\n'),
    "yacc": ("expr.y", "%token NUMBER\n%%\nexpr: NUMBER ;\n%%\n"),
    "yaml": ("ci.yml", "on: push\njobs: {}\n"),
    "zig": ("main.zig", "pub fn main() void {}\n"),
}


def test_the_table_names_all_92_languages() -> None:
    assert set(TABLE) == LANGUAGES and len(LANGUAGES) == 92


@pytest.mark.parametrize("language", TABLE)
def test_a_typical_file_is_detected(language: str) -> None:
    name, text = TABLE[language]
    assert detect(f"some/folder/{name}", text) == language


@pytest.mark.parametrize(
    ("path", "text", "language"),
    [
        ("list.h", "struct list { struct list *next; };\n", "c"),
        ("list.h", "#pragma once\nnamespace shop { class List; }\n", "c++"),
        ("View.h", "#import <UIKit/UIKit.h>\n@interface View : UIView\n@end\n", "objectc++"),
        ("View.m", "#import <UIKit/UIKit.h>\n@implementation View\n@end\n", "objectc++"),
        ("proof.v", "Theorem t : True.\nProof. exact I. Qed.\n", ""),
        ("shop.pro", "QT += core\nSOURCES += main.cpp\n", ""),
        ("de.ts", '<?xml version="1.0"?>\n<!DOCTYPE TS>\n<TS></TS>\n', ""),
        ("shader.fs", "#version 330\nvoid main() { gl_FragColor = vec4(1); }\n", "glsl"),
        ("thesis.cls", "\\NeedsTeXFormat{LaTeX2e}\n\\ProvidesClass{thesis}\n", "tex"),
        ("Order.cls", 'VERSION 1.0 CLASS\nAttribute VB_Name = "Order"\n', "visual-basic"),
        ("Order.cls", "public with sharing class Order {}\n", ""),
        ("bin/deploy", "#!/usr/bin/env -S python3.11 -u\nprint(1)\n", "python"),
        ("bin/deploy", "#!/usr/bin/env bash\necho\n", "shell"),
        ("bin/deploy", "\x7fELF", ""),
        ("docker/Dockerfile.dev", "FROM x\n", "dockerfile"),
        ("BUILD.bazel", "py_library(name = 'x')\n", "python"),
        ("tsconfig.json", "{}", "json"),
        ("LICENSE", "Permission is hereby granted\n", ""),
        (".gitignore", "*.pyc\n", ""),
        ("photo.py.png", "", ""),
        ("UPPER.PY", "x = 1\n", "python"),
    ],
)
def test_content_name_or_shebang_decide_where_the_extension_does_not(path: str, text: str, language: str) -> None:
    assert detect(path, text) == language
