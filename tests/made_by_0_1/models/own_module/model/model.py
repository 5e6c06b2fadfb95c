
import torch
from torch import nn

def model():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.BatchNorm1d(16), nn.Linear(16, 4))

def student(keep):
    return nn.Sequential(nn.Linear(8, round(16 * keep)), nn.ReLU(), nn.Linear(round(16 * keep), 4))

def batch(size):
    return torch.rand(size, 8)
